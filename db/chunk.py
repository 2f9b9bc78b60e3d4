"""Rows of one table that are sent together, and where each of them came from."""

from collections.abc import Iterable
from datetime import UTC, date
from functools import cached_property

from db.ledger import Entry
from db.stage import Placed
from db.tables import TABLE_OF, Table
from processing.records import Kind, Parsed, Rejected

#: Rows sent at a time: what is in memory, and what is done again if one of their keys exists.
CHUNK_ROWS = 10_000

#: Bytes of what has no bound of its own, unknown fields and rejects, at which a chunk is full too.
CHUNK_BYTES = 16 * 1024 * 1024

LONGEST_EXACT_TIME = len("2022-06-05T21:02:34.123456Z")


class Chunk:
    """Elements whose rows go to one table together."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.table: Table = TABLE_OF[kind.record]
        self.size = 0
        self.bytes = 0
        self.elements: list[tuple[Entry, Parsed]] = []
        self.rejected: list[tuple[Entry, Rejected]] = []

    def add(self, entry: Entry, parsed: Parsed) -> None:
        self.bytes += parsed.loose_bytes
        if parsed.records:
            self.size += len(parsed.records)
            self.elements.append((entry, parsed))
        if parsed.rejected:
            self.size += len(parsed.rejected)
            self.rejected += [(entry, rejected) for rejected in parsed.rejected]

    def is_full(self) -> bool:
        return self.size >= CHUNK_ROWS or self.bytes >= CHUNK_BYTES

    def days(self) -> set[date]:
        """The UTC days of the rows; all records of an element have one time."""
        time = self.table.time
        times = [time(parsed.records[0]) for _, parsed in self.elements]
        return {(time if time.tzinfo is UTC else time.astimezone(UTC)).date() for time in times}

    @cached_property
    def text(self) -> bytes:
        """The rows in COPY's text format.

        A time goes as it stands in the file: to write one anew takes a microsecond. Up to microseconds
        PostgreSQL reads it as we do; beyond, it would round in its own way.
        """
        lines, name = self.table.lines, self.table.key[1]
        return "".join(
            [
                lines(parsed.records, self._exact(parsed.source[name], parsed), entry.file_id)
                for entry, parsed in self.elements
            ]
        ).encode()

    def _exact(self, text: str, parsed: Parsed) -> str:
        return text if len(text) <= LONGEST_EXACT_TIME else str(self.table.time(parsed.records[0]))

    def placed(self) -> list[Placed]:
        """The rows one by one, each with the place where it came from."""
        return [
            Placed(record, entry, parsed, offset)
            for entry, parsed in self.elements
            for offset, record in zip(_offsets(parsed), parsed.records, strict=True)
        ]


def _offsets(parsed: Parsed) -> Iterable[int]:
    """Where in its element each record stands: the rejected ones stand between them."""
    count = len(parsed.records) + len(parsed.rejected)
    if not parsed.rejected:
        return range(count)
    rejected = {rejected.position - parsed.position for rejected in parsed.rejected}
    return [offset for offset in range(count) if offset not in rejected]
