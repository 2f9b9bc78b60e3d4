"""The ledger of a publisher: a compacted topic, which says of each file what was published of it.

It is written in the transactions of the records, and read to its end at the start and after any trouble.
"""

import os
import socket
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from msgspec import DecodeError, Raw, Struct, ValidationError, json

from processing.errors import DatabaseUnavailable
from processing.sink import Delivery
from sinks.kafka_ends import committed_ends
from sources.kafka_client import Complaints

#: The longest time of reading the ledger to its end, in seconds.
_READ_SECONDS = 30.0

_DIGEST_LENGTH = 64

PUBLISHED, IN_PARTS, FAILED = "published", "in parts", "failed"


class Entry(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A file in the ledger, under its digest.

    A file in parts is published up to next_element; one that failed may be, too.
    """

    state: str
    name: str
    size: int
    started_at: datetime
    kind: str | None = None
    read: int = 0
    published: int = 0
    rejected: int = 0
    empty: int = 0
    next_element: int = 0
    deliveries: int = 1
    reason: str = ""
    address: str = ""
    extra: Raw | None = None


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


class Ledger:
    """The ledger's topic as far as it has been read: what it says of files, and who may publish."""

    def __init__(self, topic: str, publisher: str, beat: Callable[[], None]) -> None:
        self.published: set[bytes] = set()
        self.unfinished: dict[bytes, Unfinished] = {}
        self.session: Session | None = None
        self._topic = topic
        self._publisher = publisher
        self._beat = beat
        self._next: dict[int, int] = {}

    @property
    def session_key(self) -> str:
        return f"publisher:{self._publisher}"

    def note(self, digest: bytes, entry: Entry) -> None:
        """Takes what was committed of a file."""
        if entry.state == PUBLISHED:
            self.published.add(digest)
            self.unfinished.pop(digest, None)
        else:
            self.unfinished[digest] = Unfinished(entry.next_element, entry.deliveries)

    def read(self, admin: AdminClient, consumer: Consumer, complaints: Complaints) -> None:
        """Reads on to the end of what is committed now."""
        deadline = time.monotonic() + _READ_SECONDS
        with complaints.translated(admin):
            found = committed_ends(admin, [self._topic], self._beat)
            ends = {number: end for (_, number), end in found.items()}
            consumer.assign(
                [
                    TopicPartition(self._topic, number, self._next.get(number, OFFSET_BEGINNING))
                    for number in ends
                ]
            )
            while any(self._next.get(number, 0) < end for number, end in ends.items()):
                self._beat()
                if time.monotonic() >= deadline:
                    raise DatabaseUnavailable(f"can't read {self._topic} to its end: the broker is slow")
                for message in consumer.consume(10_000, 0.1):
                    self._take(message)

    def _take(self, message: Any) -> None:
        error = message.error()
        if error is None:
            self._next[message.partition()] = message.offset() + 1
            self._apply(message.key() or b"", message.value())
        elif error.code() == KafkaError._PARTITION_EOF:
            # Behind the markers of transactions, which are no messages.
            self._next[message.partition()] = message.offset()
        else:
            raise KafkaException(error)

    def _apply(self, key: bytes, value: bytes | None) -> None:
        """Takes a record; one of a form that is not known, such as a newer one, is passed over."""
        try:
            if key == self.session_key.encode():
                self.session = json.decode(value or b"", type=Session)
            elif len(key) == _DIGEST_LENGTH:
                digest = bytes.fromhex(key.decode())
                if value is None:  # a person wants it to be published again
                    self.published.discard(digest)
                    self.unfinished.pop(digest, None)
                else:
                    self.note(digest, json.decode(value, type=Entry))
        except (DecodeError, ValidationError, ValueError):
            return
