"""Messages that are loaded in one transaction: parsed as they come, in the order of their partitions."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from processing.errors import FileError, TooLarge
from processing.file_types import KINDS, Kinds
from processing.message_value import (
    DocumentValue,
    is_one_value,
    may_be_document,
    read_any,
    read_fast,
    read_records,
    reject,
)
from processing.records import Decoded, Kind, Parsed, Record
from processing.stream import Message, Messages, Move, TopicPartition

#: Messages, bytes of values, and records with which a batch is full: what is held of it in memory.
MOST_MESSAGES = 25_000
MOST_BYTES = 8 * 1024 * 1024
MOST_RECORDS = 100_000

#: Messages that are parsed together.
_GROUP = 256


class Records:
    """Consecutive messages of a topic that are records of one kind, or are rejected whole."""

    def __init__(self, topic: str, topic_id: str, kind: Kind) -> None:
        self.topic, self.topic_id, self.kind = topic, topic_id, kind
        self.messages = Messages(keeps_values=True)
        self.parsed: list[Parsed] = []
        self.size = 0
        self.records = 0
        self._fast: list[tuple[Message, Decoded]] = []
        self._slow: list[Message] = []

    def add_fast(self, message: Message, decoded: Decoded) -> None:
        self.end_slow()
        self._fast.append((message, decoded))
        if len(self._fast) >= _GROUP:
            self.end_fast()

    def add_slow(self, message: Message) -> None:
        """Adds the text of one JSON object, to be parsed together with its neighbours."""
        self.end_fast()
        self._slow.append(message)
        if len(self._slow) >= _GROUP:
            self.end_slow()

    def add_parsed(self, message: Message, parsed: Parsed) -> None:
        self.end()
        self._append(message, parsed)

    def end(self) -> None:
        """Parses what is still to be parsed."""
        self.end_fast()
        self.end_slow()

    def end_fast(self) -> None:
        fast, self._fast = self._fast, []
        if not fast:
            return
        records: list[Record] = []
        position = self.records
        for message, decoded in fast:
            self.messages.add(message, position + len(records))
            self.size += len(message.value or b"")
            records += decoded.records
        source = b"[%b]" % b",".join([message.value or b"" for message, _ in fast])
        empty = sum([decoded.empty for _, decoded in fast])
        index = len(self.messages) - len(fast)
        self.parsed.append(Parsed(index, position, source, records, [], count=len(fast), empty=empty))
        self.records += len(records)

    def end_slow(self) -> None:
        slow, self._slow = self._slow, []
        if not slow:
            return
        values = [message.value or b"" for message in slow]
        try:
            elements: Sequence[Parsed] = read_records(values, self.kind)
        except FileError:
            elements = [_alone(value, self.kind) for value in values]
        for message, parsed in zip(slow, elements, strict=True):
            self._append(message, parsed)

    def _append(self, message: Message, parsed: Parsed) -> None:
        index, position = len(self.messages), self.records
        rejected = [
            replace(one, position=position + one.position - parsed.position) for one in parsed.rejected
        ]
        self.messages.add(message, position)
        self.parsed.append(replace(parsed, index=index, position=position, rejected=rejected))
        self.size += len(message.value or b"")
        self.records += len(parsed.records) + len(rejected)


class DocumentRun(NamedTuple):
    """A message that is a document, with an entry of its own."""

    message: Message
    document: DocumentValue


class MessageBatch:
    """Messages to load, and the moves of the positions behind them."""

    def __init__(
        self, kind_of_topic: Mapping[str, Kind], max_document_bytes: int, kinds: Kinds = KINDS
    ) -> None:
        self.runs: list[Records | DocumentRun] = []
        self.messages = self.bytes = 0
        self._kind_of_topic = kind_of_topic
        self._max_document_bytes = max_document_bytes
        self._kinds = kinds
        self._records = 0
        self._open: dict[str, Records] = {}
        self._moves: dict[TopicPartition, tuple[int, int]] = {}

    @property
    def is_empty(self) -> bool:
        return not self._moves

    @property
    def is_full(self) -> bool:
        return self.messages >= MOST_MESSAGES or self.bytes >= MOST_BYTES or self._records >= MOST_RECORDS

    @property
    def room(self) -> int:
        """The bytes for which there is room."""
        return max(0, MOST_BYTES - self.bytes)

    @property
    def moves(self) -> list[Move]:
        """The moves, in an order that is the same for all consumers."""
        return [Move(partition, *self._moves[partition]) for partition in sorted(self._moves)]

    def add(self, message: Message, before: int) -> None:
        """Parses a message; before is the position of its partition, without this batch's moves."""
        value, topic = message.value, message.partition.topic
        kind = self._kind_of_topic[topic]
        self.messages += 1
        self.bytes += len(value or b"")
        self.reach(message.partition, before, message.offset + 1)
        if value is None:
            self._reject(message, "expected a record or a document, got no value: a tombstone")
        elif decoded := read_fast(value, kind):
            self._records += len(decoded.records)
            self._open_records(message).add_fast(message, decoded)
        elif is_one_value(value) and not may_be_document(value, self._kinds):
            self._records += 1
            self._open_records(message).add_slow(message)
        else:
            self._add_any(message, value, kind)

    def reach(self, partition: TopicPartition, before: int, next_offset: int) -> None:
        """Moves the position of a partition, also where what stands before next_offset is no message."""
        first, _ = self._moves.get(partition, (before, before))
        self._moves[partition] = first, next_offset

    def end(self) -> None:
        """Parses what is still to be parsed."""
        for records in self._open.values():
            records.end()

    def _add_any(self, message: Message, value: bytes, kind: Kind) -> None:
        try:
            found = read_any(value, kind, self._max_document_bytes, self._kinds)
        except TooLarge:
            self._reject(message, f"expected at most {self._max_document_bytes} bytes of text, got more")
        except FileError as error:
            self._reject(message, str(error))
        else:
            if isinstance(found, Parsed):
                self._records += len(found.records) + len(found.rejected)
                self._open_records(message).add_parsed(message, found)
                return
            self._records += found.records
            if records := self._open.pop(message.partition.topic, None):
                records.end()
            self.runs.append(DocumentRun(message, found))

    def _reject(self, message: Message, reason: str) -> None:
        parsed = Parsed(0, 0, None, [], [reject(message.value, reason)])
        self._open_records(message).add_parsed(message, parsed)

    def _open_records(self, message: Message) -> Records:
        """Returns where records of the topic go; behind a document they are others: order matters."""
        partition = message.partition
        records = self._open.get(partition.topic)
        if records is None:
            records = Records(partition.topic, partition.topic_id, self._kind_of_topic[partition.topic])
            self._open[partition.topic] = records
            self.runs.append(records)
        return records


def _alone(value: bytes, kind: Kind) -> Parsed:
    try:
        (parsed,) = read_records([value], kind)
    except FileError as error:
        return Parsed(0, 0, None, [], [reject(value, str(error))])
    return parsed
