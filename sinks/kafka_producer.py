"""The producer of a publisher: it has a transactional id for itself, and is replaced after any trouble."""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from msgspec import Struct, json

from processing.errors import DatabaseUnavailable, Misconfigured, Refused, TryAgain
from processing.file_types import KINDS, Kinds
from sinks.kafka_ends import wait_until_decided
from sinks.kafka_ledger import PARTITION, READER, Ledger, Session
from sinks.kafka_messages import HEADERS, OVERHEAD, Message
from sinks.kafka_topics import Topics
from sources.kafka_client import Cluster

#: The longest time that a call may take without any answer, and the pieces in which it is waited for.
_ANSWER_SECONDS = 30.0
_PIECE_SECONDS = 5.0

#: Bytes of messages that wait to be sent, and their number.
_QUEUED_KBYTES = 64 * 1024
_QUEUED_MESSAGES = 100_000

#: Bytes of messages that a transaction takes: so many for each second of its time-out, and never fewer than
#: those of a batch of small files.
_BYTES_A_SECOND = 1024 * 1024
_LEAST_BYTES = 16 * 1024 * 1024

_TRANSACTION_TIMEOUT = "transaction.timeout.ms"

#: The partition of which a key decides.
_BY_KEY = -1

#: The usual settings of the producer; those of the user come over them.
_USUAL = {
    "compression.type": "lz4",
    "linger.ms": "50",  # larger batches are less work for all; a commit does not wait for it
    "partitioner": "murmur2_random",  # that of the Java clients
    _TRANSACTION_TIMEOUT: "60000",
}
_LARGEST_BATCH = 1_000_000


#: What a user may not set: other clients than a producer of transactions can not even be made with it.
_OURS = ("transactional.id", "enable.idempotence")


def without_ours(properties: Mapping[str, str]) -> Mapping[str, str]:
    """Returns the properties for the clients of a publisher, which has an identity of its own."""
    return {name: value for name, value in properties.items() if name not in _OURS}


class Publisher(Struct, frozen=True):
    """The cluster, the topics' prefix, and the name that a folder or bucket has for its publisher."""

    cluster: Cluster
    prefix: str
    name: str

    @property
    def transactional_id(self) -> str:
        """The id by which the broker knows this publisher: one at a time may have it."""
        return f"{self.prefix}-{self.name}-0"


class TransactionalProducer:
    """One producer for all transactions, and a new one after any trouble with it."""

    def __init__(
        self,
        publisher: Publisher,
        kinds: Kinds = KINDS,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Opens nothing. beat() is called at least every few seconds while something is waited for."""
        self.topics = Topics(publisher.prefix, kinds.values())
        self.ledger = Ledger(self.topics.ledger, publisher.transactional_id, beat)
        self.largest: Mapping[str, int] = {}
        self._publisher = publisher
        self._settings = {**_USUAL, **publisher.cluster.properties}
        self.most_bytes = max(
            _LEAST_BYTES, int(self._settings[_TRANSACTION_TIMEOUT]) * _BYTES_A_SECOND // 1000
        )
        self._beat = beat
        self._session = Session.of_this_process(uuid4().hex)
        self._complaints = publisher.cluster.complaints(DatabaseUnavailable)
        self._refused: KafkaError | None = None
        self._is_announced = self._has_opened = False
        self._admin: AdminClient | None = None
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._kept: list[Producer] = []

    def close(self) -> None:
        """Releases the clients."""
        self._give_up()
        self._consumer = self._admin = None

    # Steps of a transaction ------------------------------------------------------------------------

    def begin(self) -> None:
        """Begins a transaction of the producer, a new one after any trouble."""
        if self._producer is None:
            self._producer = self._open()
        self._complaints.clear()
        self._refused = None
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            raise self._failure(error) from None

    def send(self, topic: str, messages: Iterable[Message]) -> None:
        """Hands messages to the producer; waits while too many are on their way."""
        assert self._producer is not None
        produce, partition = self._producer.produce, self._partition(topic)
        for key, value in messages:
            try:
                produce(topic, value, key, partition, headers=HEADERS)
            except BufferError:
                self._insist_on(topic, value, key)
            except KafkaException as error:
                raise self._failure(error) from None

    def _partition(self, topic: str) -> int:
        return PARTITION if topic == self.topics.ledger else _BY_KEY

    def _insist_on(self, topic: str, value: bytes, key: str) -> None:
        """Hands a message over as soon as there is room for it."""
        assert self._producer is not None
        partition = self._partition(topic)
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            self._beat()
            self._producer.poll(0.1)
            try:
                self._producer.produce(topic, value, key, partition, headers=HEADERS)
                return
            except BufferError:
                if time.monotonic() >= deadline:
                    raise self._lost(DatabaseUnavailable("the broker takes no messages")) from None
            except KafkaException as error:
                raise self._failure(error) from None

    def commit(self) -> None:
        """Commits; of a commit without an answer, begin() reads from the ledger what became of it."""
        assert self._producer is not None
        self._insist(self._producer, self._producer.commit_transaction)

    def abort(self) -> None:
        """Aborts the transaction that was begun, unless the producer was given up."""
        if self._producer is not None:
            try:
                self._producer.abort_transaction(_PIECE_SECONDS)
            except KafkaException:
                self._give_up()

    def _insist(self, producer: Producer, call: Callable[[float], Any]) -> None:
        """Repeats a call that may be repeated, until there was no answer at all for its time."""
        deadline, waiting = 0.0, len(producer) + 1
        while True:
            if len(producer) < waiting:  # the broker is slow, but takes messages
                deadline, waiting = time.monotonic() + _ANSWER_SECONDS, len(producer)
            self._beat()
            try:
                call(_PIECE_SECONDS)
                return
            except KafkaException as error:
                is_over = time.monotonic() >= deadline or self._complaints.is_to_fix()
                if is_over or not error.args[0].retriable():
                    raise self._failure(error) from None

    def _failure(self, error: KafkaException) -> Exception:
        """Returns our error for one of the producer's, which is given up."""
        found: KafkaError = self._refused or error.args[0]
        self._give_up()
        if found.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return self._too_large(found)
        return self._complaints.explain(found)

    def _too_large(self, error: KafkaError) -> Exception:
        """Returns TryAgain if topics take less since this producer was made: a new one heeds that."""
        assert self._admin is not None
        if self.topics.prepare(self._admin, self._complaints).largest != self.largest:
            return TryAgain("a topic takes smaller messages than before")
        return Refused(f"Kafka: {error.str()}")

    def _lost(self, error: Exception) -> Exception:
        self._give_up()
        return error

    def _give_up(self) -> None:
        """Gives the producer up, without messages: with some in flight its end would damage the memory."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        producer.purge()
        deadline = time.monotonic() + _PIECE_SECONDS
        while len(producer) and time.monotonic() < deadline:
            with suppress(KafkaException, SystemError):  # a fatal error is raised again here
                producer.poll(0.05)
        if len(producer):
            self._kept.append(producer)

    def _note_undelivered(self, error: KafkaError | None, _: object) -> None:
        purged = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)
        if error is not None and error.code() not in purged and self._refused is None:
            self._refused = error

    # A new producer ---------------------------------------------------------------------------------

    def _open(self) -> Producer:
        """Returns a producer that has the transactional id for itself, with all known that was before it."""
        cluster = self._publisher.cluster
        admin = self._admin = self._admin or cluster.admin(self._complaints.take)
        limits = self.topics.prepare(admin, self._complaints)
        self.largest, self.ledger.published.days_kept = limits.largest, limits.ledger_days
        if not self._is_announced:
            self._announce()
        if self._has_opened:  # who was fenced leaves at once, and does not take the id back
            self._read_ledger()
        producer = cluster.producer(self._of_producer(), self._complaints.take)
        # Ends the transaction of a producer that had the id before: commits it if that was asked for.
        self._insist(producer, producer.init_transactions)
        # Only now: what a producer that is gone had left open has hidden all that came after it. In all
        # topics: what the broker has forgotten to end would be ended by the next transaction of this id, as
        # that one ends. Aborted with it, messages would be lost whose file is deleted.
        with self._complaints.translated(admin):
            wait_until_decided(admin, self.topics.names, self._beat)
        self._read_ledger()
        self._has_opened = True
        return producer

    def _announce(self) -> None:
        """Announces this run, before the transactional id is taken away from whoever has it."""
        settings = {"linger.ms": 0, "message.timeout.ms": int(1000 * _ANSWER_SECONDS)}
        with self._complaints.translated():
            producer = self._publisher.cluster.producer(settings, self._complaints.take)
            failed: list[KafkaError] = []
            producer.produce(
                self.topics.ledger,
                json.encode(self._session),
                self.ledger.session_key,
                PARTITION,
                headers=HEADERS,
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
            deadline = time.monotonic() + _ANSWER_SECONDS
            while producer.flush(_PIECE_SECONDS) and time.monotonic() < deadline:
                self._beat()
            if len(producer) or failed:
                raise KafkaException(failed[0] if failed else KafkaError(KafkaError._TIMED_OUT))
        self._is_announced = True

    def _read_ledger(self) -> None:
        """Reads the ledger to its end; raises Misconfigured if another publisher has announced itself."""
        if self._consumer is None:
            self._consumer = self._publisher.cluster.consumer(READER, self._complaints.take)
        assert self._admin is not None
        self.ledger.read(self._admin, self._consumer, self._complaints)
        other = self.ledger.session
        if other is not None and other.name != self._session.name:
            raise Misconfigured(
                f"another publisher with the same transactional.id ({self._publisher.transactional_id}) has "
                f"taken over: process {other.process} on {other.host}; a folder or bucket has one at a time"
            )

    def _of_producer(self) -> dict[str, Any]:
        least = min(self.largest.values()) - OVERHEAD
        return {
            **self._settings,
            "transactional.id": self._publisher.transactional_id,
            "enable.idempotence": True,
            "message.max.bytes": max(self.largest.values()),
            "batch.size": min(least, _LARGEST_BATCH),
            "queue.buffering.max.kbytes": _QUEUED_KBYTES,
            "queue.buffering.max.messages": _QUEUED_MESSAGES,
            "delivery.report.only.error": True,
            "on_delivery": self._note_undelivered,
        }
