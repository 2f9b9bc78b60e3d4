"""Apache Kafka as a sink: one Kafka transaction for each batch of files, the ledger's records in it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from msgspec import Raw, json

from processing.errors import PartsWanted, Refused
from processing.file_types import KINDS, Kinds
from processing.records import Kind, Parsed, Rejected
from processing.sink import Counts, Delivery, FirstReject
from sinks.kafka_ledger import FAILED, IN_PARTS, PUBLISHED, Entry, Unfinished, key_of
from sinks.kafka_messages import OVERHEAD, Message, Writer, apart, is_block, reject_value
from sinks.kafka_producer import Publisher, TransactionalProducer


class KafkaSink:
    """Publishes the elements of files, each as a message, and keeps a ledger of the files.

    A topic has no keys: every record that can be published is new, and none is in conflict with another.
    """

    def __init__(
        self,
        publisher: Publisher,
        max_future_hours: float = 0.0,
        kinds: Kinds = KINDS,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Opens nothing. Rejects records that are dated more hours ahead of the clock; 0: no bound."""
        self._producer = TransactionalProducer(publisher, kinds, beat)
        self._max_future_hours = max_future_hours

    @contextmanager
    def transaction(self, *, is_hasty: bool = False) -> Iterator["KafkaTransaction"]:
        """Begins a transaction that is aborted unless it was committed."""
        self._producer.begin()
        transaction = KafkaTransaction(self._producer, self._max_future_hours)
        try:
            yield transaction
        finally:
            if transaction.is_open:
                self._producer.abort()

    def record_failure(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        """Records durably that a file can't be published; one that is published stays so."""
        with self.transaction() as transaction:
            transaction.fail(delivery, kind, reason)
            transaction.commit()

    def close(self) -> None:
        """Releases what it holds."""
        self._producer.close()


class _File:
    """A file of a transaction: what was done of it."""

    def __init__(self, delivery: Delivery, kind: Kind, writer: Writer, before: Unfinished) -> None:
        self.delivery = delivery
        self.kind = kind
        self.writer = writer
        self.before = before
        self.next_element = before.next_element
        self.published = self.rejected = self.empty = 0
        self.first_reject: FirstReject | None = None
        self.extra: str | None = None

    @property
    def counts(self) -> Counts:
        read = self.published + self.rejected
        return Counts(read, self.published, 0, self.rejected, self.empty)

    def count(self, parsed: Parsed, rejected: Sequence[Rejected]) -> None:
        self.published += len(parsed.records) + len(parsed.rejected) - len(rejected)
        self.rejected += len(rejected)
        self.empty += parsed.empty
        if rejected and self.first_reject is None:
            first = rejected[0]
            self.first_reject = FirstReject(first.position, first.path, first.reason)

    def entry(self, state: str) -> Entry:
        """Returns what the ledger is to hold of it now."""
        delivery, counts = self.delivery, self.counts
        return Entry(
            state=state,
            name=delivery.name,
            size=delivery.size,
            started_at=delivery.started_at,
            kind=self.kind.name,
            read=counts.read,
            published=counts.inserted,
            rejected=counts.rejected,
            empty=counts.empty,
            next_element=self.next_element if state == IN_PARTS else 0,
            deliveries=self.before.deliveries + (state == PUBLISHED),
            address=delivery.origin.address if delivery.origin else "",
            extra=Raw(self.extra.encode()) if self.extra else None,
        )


class KafkaTransaction:
    """Messages of one or more files and their records of the ledger, all or nothing.

    Of a file that is too large for one transaction it commits parts, each with the ledger's record of how far
    it has come. Before it is known that the file is good, it is only counted.
    """

    def __init__(self, producer: TransactionalProducer, max_future_hours: float) -> None:
        self.is_open = True
        self._is_counting = False
        self._producer = producer
        self._topics = producer.topics
        self._ledger = producer.ledger
        self._hours = max_future_hours
        self._files: list[_File] = []
        self._entries: dict[bytes, Entry] = {}  # that are known once it is committed
        self._bytes = 0

    def loaded(self, digests: Sequence[bytes]) -> set[bytes]:
        """Returns those of the digests that are published."""
        return self._ledger.published.known(digests)

    def begin_file(self, delivery: Delivery, kind: Kind) -> None:
        """Begins the file to which the elements that follow belong."""
        topic = self._topics.of(kind)
        latest = datetime.now(UTC) + timedelta(hours=self._hours) if self._hours else None
        writer = Writer(kind, topic, self._producer.largest[topic], latest, self._hours)
        before = self._ledger.unfinished.get(delivery.sha256 or b"", Unfinished())
        self._files.append(_File(delivery, kind, writer, before))

    def write(self, parsed: Parsed) -> None:
        """Sends messages and rejects of the file that was begun last; commits what is enough for a part."""
        file = self._files[-1]
        end = parsed.index + parsed.count
        is_cut = parsed.index < file.before.next_element < end  # amid what is published already
        if not is_block(parsed):
            self._write(file, parsed)
        elif not is_cut and (messages := file.writer.write_block(parsed)) is not None:
            self._publish(file, parsed, messages, [])
        else:
            for element in apart(file.kind, parsed):
                self._write(file, element)
        if self._bytes > self._producer.most_bytes:
            self._commit_part(file, end)

    def keep(self, extra: str) -> None:
        """Keeps the fields beside the file's array in the ledger."""
        self._files[-1].extra = extra

    def redelivered(self, delivery: Delivery) -> None:
        """Notes one more arrival of bytes that are published, under a key of its own."""
        value = {"state": "again", "name": delivery.name, "started_at": delivery.started_at}
        self._record(f"{key_of(delivery)}:{uuid4().hex}", json.encode(value))

    def fail(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        """Notes that a file can't be published, and how far it is, if it had begun in parts."""
        if self.loaded([delivery.sha256 or b""]):
            self.redelivered(delivery)
            return
        before = self._ledger.unfinished.get(delivery.sha256 or b"", Unfinished())
        entry = Entry(
            state=FAILED,
            name=delivery.name,
            size=delivery.size,
            started_at=delivery.started_at,
            kind=kind,
            next_element=before.next_element,
            deliveries=before.deliveries + 1,
            reason=reason,
        )
        self._enter(delivery, entry)

    def finish(self) -> list[Counts]:
        """Returns the counts of the files, in the order they began; commit() waits until all is sent."""
        return [file.counts for file in self._files]

    def first_rejects(self) -> list[FirstReject | None]:
        """Returns the first reject of each file, in the order they began."""
        return [file.first_reject for file in self._files]

    def commit(self) -> list[Counts]:
        """Enters the files in the ledger, and makes all of it visible at once."""
        for file in self._files:
            self._enter(file.delivery, file.entry(PUBLISHED))
        if self._is_counting:
            raise PartsWanted
        self._commit()
        self.is_open = False
        return self.finish()

    def _write(self, file: _File, parsed: Parsed) -> None:
        self._publish(file, parsed, *file.writer.write(parsed))

    def _publish(
        self, file: _File, parsed: Parsed, messages: Sequence[Message], rejected: Sequence[Rejected]
    ) -> None:
        file.count(parsed, rejected)
        if parsed.index + parsed.count <= file.before.next_element:
            return  # an earlier transaction has published it
        if not self._is_counting:
            self._producer.send(self._topics.of(file.kind), messages)
            self._bytes += sum([len(value) for _, value in messages]) + OVERHEAD * len(messages)
        for reject in rejected:
            value = reject_value(file.delivery, file.kind, reject)
            self._send(self._topics.rejects, value, key_of(file.delivery), "a rejected record")

    def _commit_part(self, file: _File, next_element: int) -> None:
        check_unchanged = file.delivery.check_unchanged
        if check_unchanged is None:
            self._count_from_here()
            return
        check_unchanged()
        file.next_element = next_element
        self._enter(file.delivery, file.entry(IN_PARTS))
        self._commit()
        self._bytes = 0
        self._producer.begin()

    def _count_from_here(self) -> None:
        """Aborts at once, so that no reader waits for what is only counted."""
        self._producer.abort()
        self.is_open, self._is_counting, self._bytes = False, True, 0

    def _commit(self) -> None:
        self._producer.commit()
        for digest, entry in self._entries.items():
            self._ledger.note(digest, entry, time.time())
        self._entries.clear()

    def _enter(self, delivery: Delivery, entry: Entry) -> None:
        if delivery.sha256:
            self._entries[delivery.sha256] = entry
        self._record(key_of(delivery) or f"unread:{uuid4().hex}", json.encode(entry))

    def _record(self, key: str, value: bytes) -> None:
        self._send(self._topics.ledger, value, key, "the ledger's record of a file")

    def _send(self, topic: str, value: bytes, key: str, what: str) -> None:
        most = self._producer.largest[topic]
        if len(value) + len(key) + OVERHEAD > most:
            raise Refused(f"{topic} takes messages of at most {most} bytes, and {what} has {len(value)}")
        if not self._is_counting:
            self._producer.send(topic, [(key, value)])
            self._bytes += len(value) + OVERHEAD
