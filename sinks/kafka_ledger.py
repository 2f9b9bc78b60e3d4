"""The ledger of a publisher: a compacted topic, which says of each file what was published of it.

It is written in the transactions of the records, and read to its end at the start and after any trouble.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from msgspec import DecodeError, Raw, Struct, ValidationError, json

from processing.errors import DatabaseUnavailable
from processing.sink import Delivery
from sinks.kafka_ends import committed_ends, id_of
from sources.kafka_client import Complaints

#: The longest wait for something new while the ledger is read, in seconds.
_READ_SECONDS = 30.0

#: The partition of all entries, however many there are: they are read in the order in which they were made.
PARTITION = 0

#: The length of the key of a file's entry.
DIGEST_LENGTH = 64

#: The settings of what reads the ledger: it is in no group.
READER = {
    "group.id": "mobileye-ledger",
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    "enable.partition.eof": True,
    "auto.offset.reset": "earliest",
    "fetch.wait.max.ms": 10,
    "fetch.error.backoff.ms": 50,
}

_DAY = 24 * 3600.0
_DAYS_LATER = 2

PUBLISHED, IN_PARTS, FAILED = "published", "in parts", "failed"


class Standing(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The part of an entry that decides what is done with its file.

    A file in parts is published up to next_element; one that failed may be, too.
    """

    state: str
    next_element: int = 0
    deliveries: int = 1


class Entry(Standing, frozen=True, omit_defaults=True, kw_only=True):
    """A file in the ledger, under its digest."""

    name: str
    size: int
    started_at: datetime
    kind: str | None = None
    read: int = 0
    published: int = 0
    rejected: int = 0
    empty: int = 0
    reason: str = ""
    address: str = ""
    extra: Raw | None = None


_STANDING = json.Decoder(Standing)


class Unfinished(Struct, frozen=True):
    """A file that is not published, or not all of it."""

    next_element: int = 0
    deliveries: int = 0


class Session(Struct, frozen=True):
    """A run of a publisher: the last one that announced itself is the only one that may publish."""

    name: str
    host: str = ""
    process: int = 0

    @classmethod
    def of_this_process(cls, name: str) -> "Session":
        return cls(name, socket.gethostname(), os.getpid())


def key_of(delivery: Delivery) -> str:
    """Returns the key of a file: its digest."""
    return (delivery.sha256 or b"").hex()


class Published:
    """The digests of published files, by the day of their entries, as long as the ledger keeps these."""

    def __init__(self) -> None:
        self.days_kept: float | None = None
        self._by_day: dict[int, set[bytes]] = {}

    def add(self, digest: bytes, at: float) -> None:
        """Takes a digest with the time of its entry, in seconds since 1970."""
        self._by_day.setdefault(int(at // _DAY), set()).add(digest)

    def discard(self, digest: bytes) -> None:
        for digests in self._by_day.values():
            digests.discard(digest)

    def known(self, digests: Sequence[bytes]) -> set[bytes]:
        """Returns those of the digests that are published."""
        self._forget(int(time.time() // _DAY))
        wanted = set(digests)
        return {digest for known in self._by_day.values() for digest in known & wanted}

    def _forget(self, today: int) -> None:
        """Forgets days that the broker has removed by now, as it removes whole segments, a day later."""
        if self.days_kept is not None:
            for day in [day for day in self._by_day if day + self.days_kept + _DAYS_LATER < today]:
                del self._by_day[day]


class Ledger:
    """The ledger's topic as far as it has been read: what it says of files, and who may publish."""

    def __init__(self, topic: str, publisher: str, beat: Callable[[], None]) -> None:
        self.published = Published()
        self.unfinished: dict[bytes, Unfinished] = {}
        self.session: Session | None = None
        self._topic = topic
        self._publisher = publisher
        self._beat = beat
        self._topic_id = ""
        self._next: dict[int, int] = {}

    @property
    def session_key(self) -> str:
        return f"publisher:{self._publisher}"

    def note(self, digest: bytes, entry: Standing, at: float) -> None:
        """Takes what was committed of a file."""
        if entry.state == PUBLISHED:
            self.published.add(digest, at)
            self.unfinished.pop(digest, None)
        else:
            self.unfinished[digest] = Unfinished(entry.next_element, entry.deliveries)

    def read(self, admin: AdminClient, consumer: Consumer, complaints: Complaints) -> None:
        """Reads on to the end of what is committed now."""
        with complaints.translated(admin):
            found = committed_ends(admin, [self._topic], self._beat)
            ends = {number: end for (_, number), end in found.items()}
            if (topic_id := id_of(admin, self._topic)) != self._topic_id:  # it was deleted and made again
                self._topic_id = topic_id
                self._next.clear()
            starts = {number: self._next.get(number, OFFSET_BEGINNING) for number in ends}
            consumer.assign([TopicPartition(self._topic, number, start) for number, start in starts.items()])
            try:
                self._read_up_to(ends, consumer)
            finally:
                consumer.unassign()  # else it asks the broker for more all the time

    def _read_up_to(self, ends: Mapping[int, int], consumer: Consumer) -> None:
        batches = arriving(consumer, self._topic, _READ_SECONDS, self._beat)
        while any(self._next.get(number, 0) < end for number, end in ends.items()):
            for message in next(batches):
                self._take(message)

    def _take(self, message: Any) -> None:
        if message.error() is None:
            self._next[message.partition()] = message.offset() + 1
            self._apply(message.key() or b"", message.value(), message.timestamp()[1] / 1000)
        else:
            # Behind the markers of transactions, which are no messages.
            self._next[message.partition()] = message.offset()

    def _apply(self, key: bytes, value: bytes | None, at: float) -> None:
        """Takes a record; one of a form that is not known, such as a newer one, is passed over."""
        try:
            if key == self.session_key.encode():
                self.session = json.decode(value or b"", type=Session)
            elif len(key) == DIGEST_LENGTH:
                digest = bytes.fromhex(key.decode())
                if value is None:  # a person wants it to be published again
                    self.published.discard(digest)
                    self.unfinished.pop(digest, None)
                else:
                    self.note(digest, _STANDING.decode(value), at)
        except (DecodeError, ValidationError, ValueError):
            return


def arriving(
    consumer: Consumer, topic: str, seconds: float, beat: Callable[[], None] = lambda: None
) -> Iterator[list[Any]]:
    """Yields messages of the ledger as they arrive, and the ends of its partitions, which have an error.

    Raises KafkaException, and DatabaseUnavailable if nothing new comes for so long.
    """
    last_answer = time.monotonic()
    while True:
        beat()
        found: list[Any] = consumer.consume(10_000, 0.1)
        if found:
            last_answer = time.monotonic()
        elif time.monotonic() >= last_answer + seconds:
            raise DatabaseUnavailable(f"can't read {topic} to its end: the broker is slow")
        yield [message for message in found if _is_of_topic(message)]


def _is_of_topic(message: Any) -> bool:
    """Returns whether it is a message or the end of a partition; raises KafkaException for other errors."""
    error = message.error()
    if error is None or error.code() == KafkaError._PARTITION_EOF:
        return True
    if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:  # what reads this is in no group
        return False
    raise KafkaException(error)
