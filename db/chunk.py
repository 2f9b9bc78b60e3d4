"""A chunk: rows of one table that are sent together, and the file and element of each row."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby

from msgspec import Raw, json

from db.copy_format import CopyRows, copy_data
from db.ledger import Entry
from db.tables import Table
from processing.records import Kind, Parsed, Record, Rejected

#: Rows at which a chunk is full. They are in memory, and are sent again if one of their keys exists; but the
#: more rows are sorted together, the less each costs the server. This size keeps two workers below 250 MB.
CHUNK_ROWS = 25_000

#: Bytes of texts, rows, unknown fields and rejects at which a chunk is full, too; most chunks have half.
CHUNK_BYTES = 8 * 1024 * 1024


class Chunk:
    """Elements whose rows go to one table together; a row's index is its number in the order of the files."""

    def __init__(self, kind: Kind, table: Table) -> None:
        self.kind = kind
        self.table = table
        self.size = 0
        self.bytes = 0
        self.packed = CopyRows()
        self.rejected: list[tuple[Entry, Rejected]] = []
        self._elements: list[tuple[Entry, Parsed]] = []
        self._starts: list[int] = []

    def add(self, entry: Entry, parsed: Parsed) -> None:
        self.bytes += parsed.bytes
        self.size += len(parsed.records) + len(parsed.rejected)
        if parsed.records:
            start = len(self.packed.rows)
            self._starts.append(start)
            self._elements.append((entry, parsed))
            self.table.pack(self.packed, parsed.records, entry.file_id)
            self.bytes += sum(map(len, self.packed.rows[start:]))
        self.rejected += [(entry, rejected) for rejected in parsed.rejected]

    def is_full(self) -> bool:
        return self.size >= CHUNK_ROWS or self.bytes >= CHUNK_BYTES

    @cached_property
    def order(self) -> list[int]:
        """The rows' indexes sorted by the rows' bytes, nearly in key order: inserted faster by the server."""
        return sorted(range(len(self.packed.rows)), key=self.packed.rows.__getitem__)

    @cached_property
    def data(self) -> bytes:
        """The data of all rows in COPY format, in the order of self.order."""
        return self._data_of(self.order)

    @cached_property
    def hours(self) -> dict[int, Counter[bytes]]:
        """The number of rows of each hour with the same columns that are counted."""
        return {hour: Counter(counted) for hour, counted in self.packed.hours.items()}

    def data_of(self, indexes: Sequence[int]) -> bytes:
        """Some rows in COPY format."""
        # All rows, in order, are the usual case: their data is kept, in case they are sent again.
        return self.data if indexes is self.order else self._data_of(indexes)

    def _data_of(self, indexes: Sequence[int]) -> bytes:
        rows = self.packed.rows
        return copy_data([rows[index] for index in indexes])

    def records(self, without: Container[int] = ()) -> Iterator[tuple[Entry, list[Record]]]:
        """Yields the records of each entry, in order, without some rows."""
        for start, (entry, parsed) in zip(self._starts, self._elements, strict=True):
            kept = parsed.records
            if without:
                kept = [record for index, record in enumerate(kept, start) if index not in without]
            yield entry, kept

    def entry(self, index: int) -> Entry:
        """The entry of a row."""
        return self._place(index)[0]

    def of(self, indexes: Iterable[int]) -> Iterator[tuple[Entry, Record]]:
        """Yields the records of some rows."""
        for index in indexes:
            entry, parsed, number = self._place(index)
            yield entry, parsed.records[number]

    def rejects(self, found: Mapping[int, tuple[str, str]]) -> Iterator[tuple[Entry, Rejected]]:
        """Yields rows as rejects, in order; found has the reason and detail that writing them showed.

        The elements that they came from are decoded once and walked through once.
        """
        for place, indexes in groupby(sorted(found), lambda index: bisect_right(self._starts, index) - 1):
            entry, parsed = self._elements[place]
            rows, offsets = list(indexes), _offsets(parsed)
            mine = [offsets[index - self._starts[place]] for index in rows]
            for index, offset, origin in zip(rows, mine, self.kind.locate(parsed, mine), strict=True):
                path, original = origin
                if isinstance(parsed.source, bytes):  # of the fast path: plain values, no need of to_json()
                    original = Raw(json.encode(original))
                yield entry, Rejected(parsed.position + offset, path, *found[index], original)

    def _place(self, index: int) -> tuple[Entry, Parsed, int]:
        """The origin of a row: the file's entry, the elements, the number of the record in them."""
        place = bisect_right(self._starts, index) - 1
        return *self._elements[place], index - self._starts[place]


def _offsets(parsed: Parsed) -> Sequence[int]:
    """The position of each record in its elements: rejected records are between them."""
    count = len(parsed.records) + len(parsed.rejected)
    rejected = {rejected.position - parsed.position for rejected in parsed.rejected}
    return [offset for offset in range(count) if offset not in rejected] if rejected else range(count)
