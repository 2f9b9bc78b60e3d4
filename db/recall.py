"""Takes what loaded files brought out of the tables again, a transaction for each file."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime

from msgspec import Struct
from psycopg2.extensions import cursor as Cursor

from db.days import MOST_SPANS, Span, day_spans, within
from db.hourly_counts import HourlyCounts
from db.latest_status import recompute
from db.reject_pages import Sized
from db.tables import DETECTIONS, TABLES, Table, Tables


class Candidate(Struct, frozen=True):
    """An entry of the ledger, with those of the replays of its rejected records."""

    file_id: int
    name: str
    state: str
    kind: str | None
    rows: int
    rejects: int
    started_at: datetime
    finished_at: datetime
    replays: list[int]


class Taken(Struct, frozen=True):
    """Counts of what a recall took out: rows, rejected records, and replays that had loaded some of these.

    reopened counts resolved records of other files that are open again, because a replay was recalled.
    """

    rows: int
    rejects: int
    replays: int
    reopened: int


class Later(Struct, frozen=True):
    """Files, and their duplicates, which may have been of recalled rows; the first files by name."""

    files: int
    duplicates: int
    names: list[str]


#: Files that are named, at most.
_NAMED = 5

#: The days of each file's rows, by table.
Days = Mapping[int, Mapping[str, set[date]]]

_FIND = """
    SELECT file_id, name, state, kind, rows_inserted, rows_rejected, started_at, finished_at,
           ARRAY(SELECT DISTINCT resolved_by FROM mobileye_data.rejected_records r
                 WHERE r.file_id = f.file_id AND resolved_by IS NOT NULL ORDER BY 1)
    FROM mobileye_data.ingested_files f
    WHERE {condition}
    ORDER BY file_id DESC
"""


def find_named(cursor: Cursor, name: str) -> list[Candidate]:
    """Returns the entries of a name, whatever their state; the newest first, as the following two do."""
    return _find(cursor, "%s IN (name, last_name)", name)


def find_id(cursor: Cursor, file_id: int) -> list[Candidate]:
    return _find(cursor, "file_id = %s", file_id)


def find_since(cursor: Cursor, since: datetime) -> list[Candidate]:
    """Returns the files that were loaded at that time or later."""
    return _find(cursor, "state = 'loaded' AND finished_at >= %s", since)


def _find(cursor: Cursor, condition: str, value: object) -> list[Candidate]:
    cursor.execute(_FIND.format(condition=condition), (value,))
    return [Candidate(*row) for row in cursor.fetchall()]


def find_days(cursor: Cursor, candidates: Sequence[Candidate], tables: Tables = TABLES) -> Days:
    """Returns the days of the files' rows, for which it reads all rows once, however many files these are."""
    # No index leads from a file to its rows: it would slow down every load.
    asked = [file_id for found in candidates for file_id in (found.file_id, *found.replays)]
    days: dict[int, dict[str, set[date]]] = {file_id: {} for file_id in asked}
    for table in tables.values():
        cursor.execute(
            f"""
            SELECT file_id, array_agg(DISTINCT ({table.key[1]} AT TIME ZONE 'UTC')::date)
            FROM {table.full_name}
            WHERE file_id = ANY (%s) AND isfinite({table.key[1]})
            GROUP BY file_id
            """,
            (asked,),
        )
        for file_id, found_days in cursor.fetchall():
            days[file_id][table.name] = set(found_days)
    return days


def take_out(cursor: Cursor, file_id: int, days: Days, who: str, tables: Tables = TABLES) -> Taken | None:
    """Takes out what a file brought, and what replays of its rejected records did; None if it is not loaded.

    The locks on its entry and on its rejected records come first: whoever delivers the same bytes, or replays
    its records, comes before this or after it.
    """
    cursor.execute(
        "SELECT kind FROM mobileye_data.ingested_files WHERE file_id = %s AND state = 'loaded' FOR UPDATE",
        (file_id,),
    )
    entries = cursor.fetchall()
    if not entries:
        return None
    cursor.execute(
        "DELETE FROM mobileye_data.rejected_records WHERE file_id = %s RETURNING resolved_by", (file_id,)
    )
    rejects = [replay for (replay,) in cursor.fetchall()]
    replays = sorted({replay for replay in rejects if replay is not None})
    file_ids = [file_id, *replays]
    hourly = HourlyCounts()
    rows = _delete_rows(cursor, file_ids, days, tables, hourly)
    table = tables[entries[0][0]]
    if table.has_latest:
        recompute(cursor, table, file_ids)
    cursor.execute(
        """
        UPDATE mobileye_data.rejected_records SET resolved_at = NULL, resolved_by = NULL
        WHERE resolved_by = ANY (%s)
        """,
        (file_ids,),
    )
    reopened = cursor.rowcount
    _mark(cursor, rows, who)
    hourly.flush(cursor)  # last, as when they are loaded: a replay locks rejected records before the counts
    return Taken(sum(rows.values()), len(rejects), len(replays), reopened)


def _delete_rows(
    cursor: Cursor, file_ids: Sequence[int], days: Days, tables: Tables, hourly: HourlyCounts
) -> dict[int, int]:
    """Deletes the rows of files; returns how many each had, and counts the detections among them by hour."""
    rows = dict.fromkeys(file_ids, 0)
    # A file that was replayed since its days were looked up has rows of days that are not known.
    for found in (days, None):
        for table in tables.values():
            for condition in _conditions(table, file_ids, found):
                for file_id, hour, object_type, count, objects in _delete(cursor, table, file_ids, condition):
                    rows[file_id] += count
                    if object_type is not None:
                        hourly.subtract(hour, object_type, count, objects)
                if hourly.is_full():
                    hourly.spill(cursor)
        if sum(rows.values()) == _stored_rows(cursor, file_ids):
            break
    return rows


def _delete(
    cursor: Cursor, table: Table, file_ids: Sequence[int], condition: str
) -> Sequence[tuple[int, int, str | None, int, int]]:
    """Returns how many rows of each file are gone; of detections by hour and type, with their objects."""
    hour, object_type, objects = "NULL", "NULL", "NULL"
    if table.name == DETECTIONS.name:
        hour = "floor((extract(epoch FROM detection_time) - 946684800) / 3600)::integer"  # since 2000
        object_type, objects = "object_type", "sum(object_value)"
    cursor.execute(
        f"""
        WITH gone AS (
            DELETE FROM {table.full_name} WHERE file_id = ANY (%s) AND ({condition}) RETURNING *
        )
        SELECT file_id, {hour}, {object_type}, count(*), {objects} FROM gone GROUP BY 1, 2, 3
        """,
        (list(file_ids),),
    )
    return cursor.fetchall()


def _stored_rows(cursor: Cursor, file_ids: Sequence[int]) -> int:
    """Returns how many rows the files have by the ledger, without those that retention has dropped."""
    cursor.execute(
        """
        SELECT (SELECT sum(rows_inserted) FROM mobileye_data.ingested_files WHERE file_id = ANY (asked))
             - (SELECT coalesce(sum(rows), 0) FROM mobileye_data.dropped_rows WHERE file_id = ANY (asked))
        FROM (SELECT %s::bigint[] AS asked) one
        """,
        (list(file_ids),),
    )
    return int(cursor.fetchall()[0][0])


def _conditions(table: Table, file_ids: Sequence[int], days: Days | None) -> Iterable[str]:
    """Yields conditions on the time that together hold for all rows of the files."""
    if days is None:
        yield "true"
        return
    known: set[date] = set()
    for file_id in file_ids:
        known |= days.get(file_id, {}).get(table.name, set())
    spans: list[Span] = day_spans(known)
    for start in range(0, len(spans), MOST_SPANS):
        yield within(spans[start : start + MOST_SPANS], table.key[1])


def _mark(cursor: Cursor, rows: Mapping[int, int], who: str) -> None:
    """Gives the entries their new state; their counts are those of the tables, as in all entries."""
    cursor.execute(
        """
        UPDATE mobileye_data.ingested_files f
        SET state = 'recalled', recalled_at = clock_timestamp(), recalled_by = %s, rows_recalled = gone.rows,
            rows_read = 0, rows_inserted = 0, rows_duplicate = 0, rows_rejected = 0, elements_empty = 0
        FROM unnest(%s::bigint[], %s::bigint[]) AS gone (file_id, rows)
        WHERE f.file_id = gone.file_id
        """,
        (who, list(rows), list(rows.values())),
    )
    cursor.execute("DELETE FROM mobileye_data.dropped_rows WHERE file_id = ANY (%s)", (list(rows),))


def find_later(cursor: Cursor, kind: str, since: datetime, without: Sequence[int]) -> Later:
    """Returns the other files since then that had duplicates: which rows these repeated is not kept."""
    cursor.execute(
        """
        SELECT count(*), coalesce(sum(rows_duplicate), 0)::bigint,
               coalesce((array_agg(format('%%s (%%s)', file_id, name) ORDER BY file_id))[:%s], '{}')
        FROM mobileye_data.ingested_files
        WHERE state = 'loaded' AND kind = %s AND rows_duplicate > 0 AND finished_at >= %s
          AND file_id <> ALL (%s)
        """,
        (_NAMED, kind, since, list(without)),
    )
    return Later(*cursor.fetchall()[0])


def find_resolved_since(cursor: Cursor, candidate: Candidate) -> list[Sized]:
    """Returns resolved records whose replay had duplicates, maybe of rows that this file brought."""
    cursor.execute(
        """
        SELECT r.file_id, r.position, octet_length(coalesce(r.edited, r.original)::text)
        FROM mobileye_data.rejected_records r
        JOIN mobileye_data.ingested_files f USING (file_id)
        LEFT JOIN mobileye_data.ingested_files e ON e.file_id = r.resolved_by
        WHERE r.resolved_at >= %s AND f.kind = %s AND (e.file_id IS NULL OR e.rows_duplicate > 0)
        ORDER BY r.file_id, r.position
        """,
        (candidate.started_at, candidate.kind),
    )
    return [Sized(*row) for row in cursor.fetchall()]


def reopen(cursor: Cursor, file_id: int, position: int) -> None:
    """Opens a resolved record again whose row is gone."""
    cursor.execute(
        """
        UPDATE mobileye_data.rejected_records SET resolved_at = NULL, resolved_by = NULL
        WHERE file_id = %s AND position = %s
        """,
        (file_id, position),
    )
