"""Messages that are loaded in one transaction: parsed as they come, in the order of their partitions."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import NamedTuple

from msgspec.structs import replace

from processing.errors import FileError, TooLarge
from processing.file_types import KINDS, Kinds
from processing.message_value import (
    Block,
    DocumentValue,
    is_one_value,
    may_be_document,
    read_any,
    read_block,
    read_records,
    reject,
)
from processing.records import Kind, Parsed
from processing.stream import Message, Messages, Move, TopicPartition

#: Messages, bytes of values, and records with which a batch is full: what is held of it in memory.
MOST_MESSAGES = 25_000
MOST_BYTES = 8 * 1024 * 1024
MOST_RECORDS = 100_000

#: Messages that are parsed together, and fewer where one of them is not as documented.
_GROUP = 256
_SMALL_GROUP = 16


class Records:
    """Consecutive messages of a topic that are records of one kind, or are rejected whole."""

    def __init__(self, topic: str, topic_id: str, kind: Kind) -> None:
        self.topic, self.topic_id, self.kind = topic, topic_id, kind
        self.messages = Messages(keeps_values=True)
        self.parsed: list[Parsed] = []
        self.size = 0
        self.records = 0
        self._slow: list[Message] = []

    def add_block(self, messages: Sequence[Message], block: Block) -> None:
        """Adds messages that were decoded together."""
        self.end_slow()
        source, (_, records, empty) = block
        index, count = len(self.messages), len(messages)
        parsed = Parsed(index, self.records, source, records, [], count=count, empty=empty)
        self.messages.add(messages, self.records, partial(_starts, self.kind, parsed))
        self.parsed.append(parsed)
        self.size += sum([len(message.value or b"") for message in messages])
        self.records += len(records)

    def add_slow(self, message: Message) -> None:
        """Adds the text of one JSON object, to be parsed together with its neighbours."""
        self._slow.append(message)
        if len(self._slow) >= _GROUP:
            self.end_slow()

    def add_parsed(self, message: Message, parsed: Parsed) -> None:
        self.end_slow()
        self._append(message, parsed)

    def end_slow(self) -> None:
        """Parses what is still to be parsed."""
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
        self.messages.add([message], position)
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
        self._waiting: dict[str, list[Message]] = {}
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

    def add(self, messages: Sequence[Message], before: int) -> None:
        """Takes consecutive messages of a partition; before is its position, without this batch's moves."""
        partition = messages[0].partition
        self.messages += len(messages)
        self.bytes += sum([len(message.value or b"") for message in messages])
        self.reach(partition, before, messages[-1].offset + 1)
        waiting = self._waiting.setdefault(partition.topic, [])
        for message in messages:
            if message.value is not None and message.value[:1] == b"{":
                waiting.append(message)
            else:  # it may be compressed, and hold many records: they count at once
                self._parse_waiting(partition.topic)
                self._add_together([message])
        if len(waiting) >= _GROUP:
            self._parse_waiting(partition.topic)

    def reach(self, partition: TopicPartition, before: int, next_offset: int) -> None:
        """Moves the position of a partition, also where what stands before next_offset is no message."""
        first, _ = self._moves.get(partition, (before, before))
        self._moves[partition] = first, next_offset

    def end(self) -> None:
        """Parses what is still to be parsed."""
        for topic in self._waiting:
            self._parse_waiting(topic)
        for records in self._open.values():
            records.end_slow()

    def _parse_waiting(self, topic: str) -> None:
        waiting = self._waiting[topic]
        for start in range(0, len(waiting), _GROUP):
            self._add_together(waiting[start : start + _GROUP])
        waiting.clear()

    def _add_together(self, messages: Sequence[Message]) -> None:
        """Adds messages of a topic as a block, or in smaller ones if not all are as documented."""
        kind = self._kind_of_topic[messages[0].partition.topic]
        if block := read_block([message.value or b"" for message in messages], kind):
            self._records += len(block.decoded.records)
            self._open_records(messages[0]).add_block(messages, block)
        elif len(messages) == 1:
            self._add_one(messages[0], kind)
        else:
            size = _SMALL_GROUP if len(messages) > _SMALL_GROUP else 1
            for start in range(0, len(messages), size):
                self._add_together(messages[start : start + size])

    def _add_one(self, message: Message, kind: Kind) -> None:
        value = message.value
        if value is None:
            self._reject(message, "expected a record or a document, got no value: a tombstone")
        elif is_one_value(value) and not may_be_document(value, self._kinds):
            self._records += 1
            self._open_records(message).add_slow(message)
        else:
            self._add_any(message, value, kind)

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
                records.end_slow()
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


def _starts(kind: Kind, block: Parsed) -> list[int]:
    """Returns where the records of each element of a block begin."""
    counts = [len(one.records) for one in kind.parse(block.elements())]
    return [0, *accumulate(counts)][:-1]
