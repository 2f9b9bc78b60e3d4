"""Reads rejected records in pages of limited size."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from msgspec import Struct
from psycopg2.extensions import cursor as Cursor

#: Records of a page, at most.
PAGE = 200

#: Bytes of a page's texts, unless a single text has more: loading keeps several copies of each in memory.
PAGE_BYTES = 4 * 1024 * 1024

Key = tuple[int, int]


class Reject(Struct, frozen=True):
    """A rejected record; text is its JSON, as edited last."""

    file_id: int
    position: int
    file: str
    kind: str
    text: str

    @property
    def key(self) -> Key:
        return self.file_id, self.position

    @property
    def name(self) -> str:
        """The name of the record's entry in the ledger during replay."""
        return f"{self.file}, record {self.position} of file {self.file_id}"

    @property
    def digest(self) -> bytes:
        """The digest of the text, to find out later whether somebody edited it."""
        return hashlib.sha256(self.text.encode()).digest()


class Sized(Struct, frozen=True):
    """A rejected record before its text is read: its key and size."""

    file_id: int
    position: int
    bytes: int

    @property
    def key(self) -> Key:
        return self.file_id, self.position


def find(
    cursor: Cursor,
    after: Key,
    *,
    is_open: bool,
    file: str | None = None,
    reason: str | None = None,
    since: datetime | None = None,
) -> list[Sized]:
    """Finds the next records, open or resolved, optionally of one file or reason, or resolved since then."""
    cursor.execute(
        """
        SELECT r.file_id, r.position, octet_length(coalesce(r.edited, r.original)::text)
        FROM mobileye_data.rejected_records r
        JOIN mobileye_data.ingested_files f USING (file_id)
        WHERE (r.resolved_at IS NULL) = %(is_open)s
          AND (r.file_id, r.position) > %(after)s
          AND (%(file)s IS NULL OR f.name = %(file)s)
          AND (%(reason)s IS NULL OR r.reason = %(reason)s)
          AND (%(since)s::timestamptz IS NULL OR r.resolved_at >= %(since)s)
        ORDER BY r.file_id, r.position
        LIMIT %(page)s
        """,
        {"is_open": is_open, "after": after, "file": file, "reason": reason, "since": since, "page": PAGE},
    )
    return [Sized(*row) for row in cursor.fetchall()]


def count_open(cursor: Cursor, file: str | None, reason: str | None) -> int:
    """Counts the open records, optionally of one file or reason."""
    cursor.execute(
        """
        SELECT count(*)
        FROM mobileye_data.rejected_records r
        JOIN mobileye_data.ingested_files f USING (file_id)
        WHERE r.resolved_at IS NULL
          AND (%(file)s IS NULL OR f.name = %(file)s)
          AND (%(reason)s IS NULL OR r.reason = %(reason)s)
        """,
        {"file": file, "reason": reason},
    )
    ((count,),) = cursor.fetchall()
    return int(count)


def pages(found: Iterable[Sized]) -> Iterator[list[Key]]:
    """Divides records into pages, in order."""
    page: list[Key] = []
    size = 0
    for record in found:
        if page and (len(page) == PAGE or size + record.bytes > PAGE_BYTES):
            yield page
            page, size = [], 0
        page.append(record.key)
        size += record.bytes
    if page:
        yield page


def read(cursor: Cursor, keys: Sequence[Key]) -> list[Reject]:
    """Reads the records of one page."""
    cursor.execute(
        """
        SELECT r.file_id, r.position, f.name, f.kind, coalesce(r.edited, r.original)::text
        FROM mobileye_data.rejected_records r
        JOIN mobileye_data.ingested_files f USING (file_id)
        WHERE (r.file_id, r.position) IN (SELECT * FROM unnest(%s::bigint[], %s::bigint[]))
        ORDER BY r.file_id, r.position
        """,
        unzipped(keys),
    )
    return [Reject(*row) for row in cursor.fetchall()]


def unzipped(keys: Sequence[Key]) -> tuple[list[int], list[int]]:
    """Returns file ids and positions as two lists, as unnest() needs them."""
    return [file_id for file_id, _ in keys], [position for _, position in keys]
