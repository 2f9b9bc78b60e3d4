"""A sink of streams in memory, for tests and as an example of the port."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from processing.records import Kind
from processing.sink import Counts, Delivery
from processing.stream import Fenced, Gap, Messages, Move, Placed, Position, TopicPartition
from sinks.memory import MemorySink, MemoryTransaction


class MemoryStream:
    """A memory sink, with positions beside its rows."""

    def __init__(self, sink: MemorySink) -> None:
        self.sink = sink
        self.next_offsets: dict[TopicPartition, int] = {}
        self.gaps: list[tuple[Gap, str]] = []
        #: The name of each reject's entry, its path, and its place.
        self.places: list[tuple[str, str, Placed]] = []

    def positions(self, topics: Sequence[str]) -> list[Position]:
        """Returns the positions in topics of these names, also in such that are gone without a noted gap."""
        gone = {gap.partition for gap, _ in self.gaps if gap.resume_offset is None}
        known = sorted(self.next_offsets.items())
        return [Position(at, offset) for at, offset in known if at.topic in topics and at not in gone]

    def begin(self, positions: Sequence[Position]) -> None:
        """Adds positions of partitions that have none; leaves those that have one."""
        for position in positions:
            self.next_offsets.setdefault(position.partition, position.next_offset)

    def accept(self, gap: Gap, who: str) -> None:
        """Notes a gap, and moves the position behind it; raises Fenced if it is not before the gap."""
        resume = gap.first_offset if gap.resume_offset is None else gap.resume_offset
        self.move([Move(gap.partition, gap.first_offset, resume)])
        self.gaps.append((gap, who))

    @contextmanager
    def transaction(self) -> "Iterator[MemoryStreamTransaction]":
        """Begins a transaction that rolls back unless it was committed."""
        yield MemoryStreamTransaction(self)

    def check(self, moves: Sequence[Move]) -> None:
        """Raises Fenced unless each position is where its move begins."""
        if any(self.next_offsets.get(move.partition) != move.before for move in moves):
            raise Fenced("another consumer has moved a position meanwhile")

    def move(self, moves: Sequence[Move]) -> None:
        """Moves all or none; raises Fenced."""
        self.check(moves)
        self.next_offsets |= {move.partition: move.next_offset for move in moves}

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


class MemoryStreamTransaction(MemoryTransaction):
    """Rows of messages and the moves of their positions, all or nothing."""

    def __init__(self, stream: MemoryStream) -> None:
        super().__init__(stream.sink)
        self._stream = stream
        self._moves: Sequence[Move] = ()
        self._messages: list[Messages] = []

    def begin_messages(self, delivery: Delivery, kind: Kind, messages: Messages) -> None:
        """Begins an entry whose rejects are given the places of these messages."""
        # Records of messages have no digest; of these there may be many entries.
        digest = delivery.sha256 or b"entry %d" % (len(self._sink.ledger) + len(self._entries))
        self.begin_file(replace(delivery, sha256=digest), kind)
        self._messages.append(messages)

    def move(self, moves: Sequence[Move]) -> None:
        """Moves positions in commit(), which raises Fenced if one is not as before."""
        self._moves = moves

    def finish(self) -> list[Counts]:
        """Gives rejects their paths in their messages."""
        for (_, entry), messages in zip(self._entries, self._messages, strict=True):
            entry.rejected = [replace(one, path=messages.path_in(one.path)) for one in entry.rejected]
        return super().finish()

    def commit(self) -> list[Counts]:
        """Makes everything visible at once, unless it is fenced."""
        self._stream.check(self._moves)
        counts = super().commit()
        self._stream.move(self._moves)
        for (_, entry), messages in zip(self._entries, self._messages, strict=True):
            rejected = sorted(entry.rejected, key=lambda one: one.position)
            for one in rejected:
                self._stream.places.append((entry.name, one.path, messages.place(one.position)))
        return counts
