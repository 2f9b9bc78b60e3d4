"""Records that can't be loaded: kept with their original and the reason."""

from collections.abc import Iterable, Sequence
from itertools import chain

from msgspec import Struct
from psycopg2.extensions import cursor as Cursor

from db.connection import RowRefused, translate_errors
from db.copy_format import pack_reject
from db.insert import stream_into
from db.ledger import Entry
from processing.errors import Refused
from processing.records import Reason, Rejected
from processing.sink import FirstReject
from processing.validation import to_json


class Stored(Struct, frozen=True):
    """A reject as it stands in the table, without its original."""

    file_id: int
    path: str
    reason: str
    detail: str


_COLUMNS = (
    *("file_id", "position", "path", "reason", "detail", "original"),
    *("partition", "message_offset", "message"),
)


def add(cursor: Cursor, rejected: Iterable[tuple[Entry, Rejected]]) -> None:
    """Stores rejects in the transaction of their files, and counts them; raises Refused if it can't.

    They are made as they are sent: the original of a detection has all of its event's fields.
    """
    waiting = iter(rejected)
    first = next(waiting, None)
    if first is None:
        return
    rows = (_row(entry, record) for entry, record in chain([first], waiting))
    try:
        with translate_errors():
            stream_into(cursor, "mobileye_data.rejected_records", _COLUMNS, rows)
    except RowRefused as refusal:
        raise Refused(f"the table of rejected records refuses one: {refusal}") from None


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


def _row(entry: Entry, record: Rejected) -> bytes:
    entry.rejected += 1
    entry.conflict += record.reason == Reason.CONFLICT
    entry.refused += record.reason == Reason.REFUSED
    path = record.path.replace("\0", "\\u0000")  # text can't hold what a key of the record may hold
    placed = None
    if entry.messages is not None:
        path, placed = entry.messages.path_in(path), entry.messages.place(record.position)
    if entry.first_reject is None or record.position < entry.first_reject.position:
        entry.first_reject = FirstReject(record.position, path, record.reason)
    texts = path, record.reason, record.detail, to_json(record.original)
    return pack_reject(entry.file_id, record.position, texts, placed)
