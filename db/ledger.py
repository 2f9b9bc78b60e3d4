"""The ledger: which files are done, and what became of the records in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from msgspec import json
from psycopg2.extensions import cursor as Cursor

from db.connection import translate_errors
from db.tables import TABLES, Tables
from processing.errors import TryAgain
from processing.sink import Counts, Delivery, FirstReject
from processing.stream import Messages

_ADD = """
    INSERT INTO mobileye_data.ingested_files AS old
        (file_id, sha256, name, last_name, size, kind, state,
         rows_read, rows_inserted, rows_duplicate, rows_rejected, elements_empty, started_at, extra,
         origin, origin_version)
    SELECT file_id, decode(sha256, 'hex'), name, name, size, kind, 'loaded',
           rows_read, rows_inserted, rows_duplicate, rows_rejected, elements_empty, started_at, extra::jsonb,
           origin, origin_version
    FROM json_to_recordset(%s) AS new
        (file_id bigint, sha256 text, name text, size bigint, kind text, rows_read bigint,
         rows_inserted bigint, rows_duplicate bigint, rows_rejected bigint, elements_empty bigint,
         started_at timestamptz, extra text, origin text, origin_version text)
    ORDER BY sha256
    ON CONFLICT (sha256) DO UPDATE SET
        file_id = excluded.file_id,
        last_name = excluded.last_name,
        kind = excluded.kind,
        state = 'loaded',
        rows_read = excluded.rows_read,
        rows_inserted = excluded.rows_inserted,
        rows_duplicate = excluded.rows_duplicate,
        rows_rejected = excluded.rows_rejected,
        elements_empty = excluded.elements_empty,
        started_at = excluded.started_at,
        extra = excluded.extra,
        origin = excluded.origin,
        origin_version = excluded.origin_version,
        finished_at = clock_timestamp(),
        deliveries = old.deliveries + 1,
        error = NULL
    WHERE old.state <> 'loaded'
"""


@dataclass
class Entry:
    """A file's entry while its rows are being written."""

    file_id: int
    delivery: Delivery
    kind: str
    read: int = 0
    duplicate: int = 0
    rejected: int = 0
    empty: int = 0
    conflict: int = 0
    refused: int = 0
    first_reject: FirstReject | None = None
    extra: str | None = None
    #: Where its records come from, if it is of a stream.
    messages: Messages | None = None

    @property
    def counts(self) -> Counts:
        inserted = self.read - self.duplicate - self.rejected
        rejected = self.rejected, self.empty, self.conflict, self.refused
        return Counts(self.read, inserted, self.duplicate, *rejected)


def loaded(cursor: Cursor, digests: Sequence[bytes], before: str = "") -> set[bytes]:
    """Returns those of the digests that are loaded; the statement `before` is sent together with the query.

    The first statement of the transaction: what is refused is to be so where it is written, not at the end.
    """
    cursor.execute(
        f"""
        SET CONSTRAINTS ALL IMMEDIATE;
        {before}
        SELECT sha256
        FROM mobileye_data.ingested_files
        WHERE sha256 = ANY (%s) AND state = 'loaded'
        """,
        (list(digests),),
    )
    return {bytes(digest) for (digest,) in cursor.fetchall()}


class Drawn(NamedTuple):
    """The needs of a transaction before its first file: new file ids, tables with a rule, and the time."""

    file_ids: list[int]
    ruled: set[str]
    now: datetime


def draw_file_ids(cursor: Cursor, count: int, tables: Tables = TABLES) -> Drawn:
    """Draws file ids, with gaps where a transaction rolls back, and looks for rules and at the clock.

    All in one statement, since a small file pays for each.
    """
    cursor.execute(
        """
        SELECT nextval('mobileye_data.file_ids'), clock_timestamp(),
               ARRAY(SELECT relname::text FROM pg_class
                     WHERE relhasrules AND oid IN (SELECT to_regclass(name) FROM unnest(%s) AS ours (name)))
        FROM generate_series(1, %s)
        """,
        ([table.full_name for table in tables.values()], count),
    )
    drawn = cursor.fetchall()
    return Drawn(
        [file_id for file_id, *_ in drawn], {name for *_, names in drawn for name in names}, drawn[0][1]
    )


def add(cursor: Cursor, entries: Sequence[Entry]) -> None:
    """Enters loaded files; raises TryAgain if another process has loaded one of them meanwhile.

    One without a digest is no dropped file, but a record that is loaded again: of these nothing is known
    before. The unique digest makes this wait for a transaction that is loading the same bytes, be it one of
    a process that died without its server knowing.
    """
    cursor.execute(_ADD, (json.encode([_fields(entry) for entry in entries]).decode(),))
    if cursor.rowcount < len(entries):
        raise TryAgain("another process has loaded the same file")


def redelivered(cursor: Cursor, delivery: Delivery) -> None:
    """Counts one more arrival of bytes that are loaded; raises TryAgain if they were recalled meanwhile."""
    cursor.execute(
        """
        UPDATE mobileye_data.ingested_files
        SET deliveries = deliveries + 1, last_name = %s
        WHERE sha256 = %s AND state = 'loaded'
        """,
        (delivery.name, delivery.sha256),
    )
    if cursor.rowcount == 0:
        raise TryAgain("the file was recalled while it came again")


def fail(cursor: Cursor, delivery: Delivery, kind: str | None, reason: str) -> None:
    """Enters a file that can't be loaded; once, however often it comes. A loaded one stays loaded."""
    cursor.execute(
        """
        SET CONSTRAINTS ALL IMMEDIATE;
        UPDATE mobileye_data.ingested_files
        SET deliveries = deliveries + 1, last_name = %(name)s,
            state = CASE state WHEN 'loaded' THEN state ELSE 'failed' END,
            error = CASE state WHEN 'loaded' THEN NULL ELSE %(reason)s END,
            finished_at = CASE state WHEN 'loaded' THEN finished_at ELSE clock_timestamp() END
        WHERE sha256 = %(sha256)s
           OR %(sha256)s IS NULL AND sha256 IS NULL AND name = %(name)s AND size = %(size)s
        """,
        _failure(delivery, kind, reason),
    )
    if cursor.rowcount == 0:
        cursor.execute(
            """
            INSERT INTO mobileye_data.ingested_files
                (file_id, sha256, name, last_name, size, kind, state, started_at, error,
                 origin, origin_version)
            VALUES
                (nextval('mobileye_data.file_ids'), %(sha256)s, %(name)s, %(name)s, %(size)s, %(kind)s,
                 'failed', %(started_at)s, %(reason)s, %(origin)s, %(origin_version)s)
            ON CONFLICT (sha256) DO NOTHING
            """,
            _failure(delivery, kind, reason),
        )


def fold_totals(cursor: Cursor) -> None:
    """Replaces the parts of the totals by their sums, unless somebody else is about to."""
    with translate_errors():
        cursor.execute("SELECT mobileye_data.fold_totals()")


def _fields(entry: Entry) -> dict[str, object]:
    delivery, counts = entry.delivery, entry.counts
    return {
        "file_id": entry.file_id,
        "sha256": delivery.sha256.hex() if delivery.sha256 else None,
        "name": delivery.name,
        "size": delivery.size,
        "kind": entry.kind,
        "rows_read": counts.read,
        "rows_inserted": counts.inserted,
        "rows_duplicate": counts.duplicate,
        "rows_rejected": counts.rejected,
        "elements_empty": counts.empty,
        "started_at": delivery.started_at,
        "extra": entry.extra,
        **_origin(delivery),
    }


def _failure(delivery: Delivery, kind: str | None, reason: str) -> dict[str, object]:
    return {
        "sha256": delivery.sha256,
        "name": delivery.name,
        "size": delivery.size,
        "kind": kind,
        "started_at": delivery.started_at,
        "reason": reason,
        "origin": None,
        "origin_version": None,
        **_origin(delivery),
    }


def _origin(delivery: Delivery) -> dict[str, object]:
    """Returns the columns of the origin; none for a file of a folder, since an absent field is null."""
    if delivery.origin is None:
        return {}
    return {"origin": delivery.origin.address, "origin_version": delivery.origin.version}
