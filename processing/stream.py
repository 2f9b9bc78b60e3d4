"""The port to where the messages of a stream go; PostgreSQL: db/stream.py, memory: sinks/memory_stream.py."""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from msgspec import Struct

from processing.records import Kind
from processing.sink import Delivery, Transaction

#: Where an element stands in the array that it is parsed in.
_ELEMENT = re.compile(r"\$\.\w+\[\d+\]")


class TopicPartition(Struct, frozen=True, order=True, cache_hash=True):
    """One partition of a topic; a topic that is deleted and made again has another id."""

    topic: str
    topic_id: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


class Message(Struct, frozen=True, gc=False):
    """One message, at its place in a partition; the value is None if it has none."""

    partition: TopicPartition
    offset: int
    value: bytes | None


class Position(Struct, frozen=True):
    """The offset of the next message that is to be loaded from a partition."""

    partition: TopicPartition
    next_offset: int


class Move(Struct, frozen=True):
    """One step of a position: from the offset where it must be, to the next one."""

    partition: TopicPartition
    before: int
    next_offset: int


class Gap(Struct, frozen=True):
    """Messages that can't be had any more; resume_offset is None if their topic is gone."""

    partition: TopicPartition
    first_offset: int
    resume_offset: int | None
    reason: str


class Fenced(Exception):
    """Another consumer has moved a position meanwhile: nothing of this transaction is kept."""


class Placed(NamedTuple):
    """The message that a record came from; value if it is to be kept with that record."""

    partition: int
    offset: int
    value: bytes | None


class _Group(NamedTuple):
    """Messages that were parsed together, and where their records begin."""

    messages: Sequence[Message]
    starts: Callable[[], Sequence[int]]


class Messages:
    """The messages of one entry of the ledger, found by the positions of their records."""

    def __init__(self, *, keeps_values: bool) -> None:
        """Takes records with keeps_values, each to be kept with its first reject; else one document."""
        self._keeps_values = keeps_values
        self._starts: list[int] = []
        self._groups: list[_Group] = []
        self._shown: set[tuple[int, int]] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(
        self, messages: Sequence[Message], position: int, starts: Callable[[], Sequence[int]] = lambda: (0,)
    ) -> None:
        """Adds the next messages, whose first record has this position.

        starts() is asked only if a record is rejected: where, behind this position, each message begins.
        """
        self._starts.append(position)
        self._groups.append(_Group(messages, starts))
        self._count += len(messages)

    def begin(self) -> None:
        """Forgets which messages had a reject: they are written from the beginning."""
        self._shown.clear()

    def path_in(self, path: str) -> str:
        """Returns a record's JSON path in its message: the array around single records is ours."""
        return _ELEMENT.sub("$", path, count=1) if self._keeps_values else path

    def place(self, position: int) -> Placed:
        """Returns the message of a record that is rejected."""
        number = bisect_right(self._starts, position) - 1
        messages, starts = self._groups[number]
        message = messages[bisect_right(starts(), position - self._starts[number]) - 1]
        place = message.partition.partition, message.offset
        is_shown = place in self._shown or not self._keeps_values
        self._shown.add(place)
        return Placed(*place, None if is_shown else message.value)


class StreamTransaction(Transaction, Protocol):
    """Rows and rejects of messages, and the positions behind these, all or nothing."""

    def begin_messages(self, delivery: Delivery, kind: Kind, messages: Messages) -> None:
        """Begins an entry whose rejects are given the places of these messages."""

    def move(self, moves: Sequence[Move]) -> None:
        """Moves positions in commit(), which raises Fenced, and keeps nothing, if one is not as before."""


class StreamSink(Protocol):
    """A place for rows, with the positions up to which it has them.

    Every method raises DatabaseUnavailable or Misconfigured. tests/contracts/stream.py says what each
    implementation must do.
    """

    def positions(self, topics: Sequence[str]) -> list[Position]:
        """Returns the positions in topics of these names, also in such that are gone without a noted gap."""

    def begin(self, positions: Sequence[Position]) -> None:
        """Adds positions of partitions that have none; leaves those that have one."""

    def accept(self, gap: Gap, who: str) -> None:
        """Notes a gap, and moves the position behind it; raises Fenced if it is not before the gap."""

    def transaction(self) -> AbstractContextManager[StreamTransaction]:
        """Begins a transaction that rolls back unless committed."""

    def interrupt(self) -> None:
        """Ends what another thread waits for, as if the server had gone."""

    def close(self) -> None:
        """Releases what it holds."""
