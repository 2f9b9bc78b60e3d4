"""Rows of one table that are sent together, and where each of them came from."""

from collections.abc import Iterable, Iterator
from functools import cached_property

from db.ledger import Entry
from db.rows import Packed, copy_data
from db.stage import Placed
from db.tables import TABLE_OF, Row, Table
from processing.records import Kind, Parsed, Record, Rejected

#: Rows sent at a time: what is in memory, and what is done again if one of their keys exists. Sorted,
#: 50,000 cost the server a quarter less than 10,000 (measured).
CHUNK_ROWS = 50_000

#: Bytes of what has no bound of its own, unknown fields and rejects, at which a chunk is full too.
CHUNK_BYTES = 8 * 1024 * 1024


class Chunk:
    """Elements whose rows go to one table together."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.table: Table = TABLE_OF[kind.record]
        self.size = 0
        self.bytes = 0
        self.packed = Packed()
        self.elements: list[tuple[Entry, Parsed]] = []
        self.rejected: list[tuple[Entry, Rejected]] = []

    def add(self, entry: Entry, parsed: Parsed) -> None:
        self.bytes += parsed.loose_bytes
        self.size += len(parsed.records) + len(parsed.rejected)
        if parsed.records:
            self.table.pack(self.packed, parsed.records, entry.file_id)
            self.elements.append((entry, parsed))
        self.rejected += [(entry, rejected) for rejected in parsed.rejected]

    def is_full(self) -> bool:
        return self.size >= CHUNK_ROWS or self.bytes >= CHUNK_BYTES

    @cached_property
    def data(self) -> bytes:
        """The rows for COPY, in the order of their bytes, nearly that of keys: the server likes it better."""
        return copy_data(sorted(self.packed.rows))

    def table_rows(self) -> list[Row]:
        """The rows for execute_values."""
        row = self.table.row
        return [row(record, entry.file_id) for entry, parsed in self.elements for record in parsed.records]

    def placed(self) -> list[Placed]:
        """The rows one by one, each with the place where it came from."""
        return [Placed(row, *place) for row, place in zip(self.packed.rows, self._places(), strict=True)]

    def _places(self) -> Iterator[tuple[Record, Entry, Parsed, int]]:
        for entry, parsed in self.elements:
            for offset, record in zip(_offsets(parsed), parsed.records, strict=True):
                yield record, entry, parsed, offset


def _offsets(parsed: Parsed) -> Iterable[int]:
    """Where in its elements each record stands: the rejected ones stand between them."""
    count = len(parsed.records) + len(parsed.rejected)
    if not parsed.rejected:
        return range(count)
    rejected = {rejected.position - parsed.position for rejected in parsed.rejected}
    return [offset for offset in range(count) if offset not in rejected]
