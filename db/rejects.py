"""Records that can't be loaded: kept with their original and the reason."""

from collections.abc import Sequence

from msgspec import Struct
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from db.ledger import Entry
from processing.fields import to_json
from processing.records import Rejected


class Stored(Struct, frozen=True):
    """A reject as it stands in the table, without its original."""

    file_id: int
    path: str
    reason: str
    detail: str


def add(cursor: Cursor, rejected: list[tuple[Entry, Rejected]]) -> None:
    """Stores rejects in the transaction of their files."""
    execute_values(
        cursor,
        """
        INSERT INTO mobileye_data.rejected_records
            (file_id, position, path, reason, detail, original)
        VALUES %s
        """,
        [_row(entry, record) for entry, record in rejected],
        page_size=1000,
    )


def of_files(cursor: Cursor, file_ids: Sequence[int], most: int) -> list[Stored]:
    """The first rejects of these files."""
    cursor.execute(
        """
        SELECT file_id, path, reason, detail
        FROM mobileye_data.rejected_records
        WHERE file_id = ANY (%s)
        ORDER BY file_id, position
        LIMIT %s
        """,
        (list(file_ids), most),
    )
    return [Stored(*row) for row in cursor.fetchall()]


def _row(entry: Entry, record: Rejected) -> tuple[object, ...]:
    path = record.path.replace("\0", "\\u0000")  # text can't hold what a key of the record may hold
    original = to_json(record.original)
    return entry.file_id, record.position, path, record.reason, record.detail, original
