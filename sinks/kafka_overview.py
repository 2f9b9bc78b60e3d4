"""An overview of the topics of publishers: what the ledger says of files, and how much the topics hold."""

from collections import deque
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from msgspec import DecodeError, Struct, ValidationError, json

from processing.counted import counted
from processing.errors import DatabaseUnavailable
from sinks.kafka_ledger import DIGEST_LENGTH, FAILED, IN_PARTS, PUBLISHED, READER, Entry, arriving
from sinks.kafka_topics import Topics
from sources.kafka_client import Cluster
from sources.kafka_offsets import first_offsets, log_ends, stable_ends

#: The longest wait for an answer, in seconds.
_SECONDS = 5.0

#: The longest time in which nothing new of the ledger comes, in seconds.
_SILENT_SECONDS = 10.0


class TopicSize(Struct, frozen=True):
    """One topic; messages is the most that it can hold, since the marks of transactions are counted, too.

    open: of these, messages of transactions that are not committed, and what came after them. No partitions:
    the topic does not exist.
    """

    topic: str
    partitions: int = 0
    messages: int = 0
    open: int = 0

    def __str__(self) -> str:
        if not self.partitions:
            return f"{self.topic}, does not exist"
        opened = f", {self.open:,} of them not committed yet" if self.open else ""
        count = counted(self.partitions, "partition")
        return f"{self.topic}, {count}, at most {counted(self.messages, 'message')}{opened}"


class LedgerEntry(Struct, frozen=True):
    """The last that the ledger says of a file."""

    name: str
    state: str
    committed_at: datetime
    read: int
    published: int
    rejected: int
    reason: str

    def __str__(self) -> str:
        counts = f"{self.read:,} = {self.published:,} published + {self.rejected:,} rejected"
        what = self.reason or counts
        return f"{self.committed_at:%Y-%m-%d %H:%M:%S}  {self.state}  {self.name}  {what}"


class LedgerTotals(Struct, frozen=True):
    """Counts of all files in the ledger, by their last entry, and of the records of those published."""

    published_files: int
    files_in_parts: int
    failed_files: int
    read: int
    published: int
    rejected: int
    last_files: list[LedgerEntry]
    last_failures: list[LedgerEntry]


class Overview:
    """Looks at the topics of all publishers with one prefix, and changes nothing."""

    def __init__(self, cluster: Cluster, topics: Topics) -> None:
        """Connects to nothing yet; raises Misconfigured for properties that nobody knows."""
        self._cluster = cluster
        self._topics = topics
        self._complaints = cluster.complaints(DatabaseUnavailable)
        self._admin: AdminClient = cluster.admin(self._complaints.take)

    def sizes(self) -> list[TopicSize]:
        """Returns the size of each topic; raises DatabaseUnavailable or Misconfigured."""
        with self._complaints.translated(self._admin):
            there = self._admin.list_topics(timeout=_SECONDS).topics
            places = [(name, number) for name in self._topics.names if name in there
                      for number in there[name].partitions]  # fmt: skip
            first = first_offsets(self._admin, places, _SECONDS)
            stable = stable_ends(self._admin, places, _SECONDS)
            end = log_ends(self._admin, places, _SECONDS)
        return [
            TopicSize(
                name,
                len(own := [place for place in places if place[0] == name]),
                sum(end[place] - first[place] for place in own),
                sum(end[place] - stable[place] for place in own),
            )
            for name in self._topics.names
        ]

    def ledger(self, partitions: int, shown: int) -> LedgerTotals:
        """Reads the ledger to its end, of so many partitions; raises DatabaseUnavailable or Misconfigured."""
        reading = _Reading(shown)
        consumer = self._cluster.consumer(READER, self._complaints.take)
        try:
            with self._complaints.translated(self._admin):
                consumer.assign(
                    [
                        TopicPartition(self._topics.ledger, number, OFFSET_BEGINNING)
                        for number in range(partitions)
                    ]
                )
                self._read(consumer, reading, set(range(partitions)))
        finally:
            consumer.close()
        return reading.totals()

    def _read(self, consumer: Consumer, reading: "_Reading", left: set[int]) -> None:
        batches = arriving(consumer, self._topics.ledger, _SILENT_SECONDS)
        while left:
            for message in next(batches):
                if message.error() is None:
                    reading.take(message)
                else:  # the end of a partition
                    left.discard(message.partition())


class _Reading:
    """The entries that were read: of each file the last one counts."""

    def __init__(self, shown: int) -> None:
        self._files: dict[bytes, tuple[str, int, int, int]] = {}
        self._last: deque[LedgerEntry] = deque(maxlen=shown)
        self._failures: deque[LedgerEntry] = deque(maxlen=shown)

    def take(self, message: Any) -> None:
        """Takes an entry; one of a form that is not known, such as a newer one, is passed over."""
        key, value = message.key() or b"", message.value()
        if len(key) != DIGEST_LENGTH:
            return
        if value is None:  # a person wants it to be published again
            self._files.pop(key, None)
            return
        try:
            entry = json.decode(value, type=Entry)
        except (DecodeError, ValidationError):
            return
        self._files[key] = entry.state, entry.read, entry.published, entry.rejected
        at = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
        counts = entry.read, entry.published, entry.rejected
        shown = LedgerEntry(entry.name, entry.state, at, *counts, entry.reason)
        (self._failures if entry.state == FAILED else self._last).append(shown)

    def totals(self) -> LedgerTotals:
        files = self._files.values()
        states = [state for state, *_ in files]
        published = [counts for state, *counts in files if state == PUBLISHED]
        read, sent, rejected = (sum(counts[part] for counts in published) for part in range(3))
        numbers = states.count(PUBLISHED), states.count(IN_PARTS), states.count(FAILED)
        return LedgerTotals(
            *numbers, read, sent, rejected, list(self._last)[::-1], list(self._failures)[::-1]
        )
