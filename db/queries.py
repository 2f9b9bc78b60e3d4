"""Queries for the status command, and for checks of the server's settings."""

from datetime import datetime
from typing import Any

from msgspec import Struct
from psycopg2.extensions import connection as Connection

from db.connection import translate_errors
from db.failures import IS_OPEN


class Totals(Struct, frozen=True):
    """Counts of all files and records in the ledger."""

    loaded_files: int
    failed_files: int
    recalled_files: int
    open_failures: int
    rows_read: int
    rows_inserted: int
    rows_duplicate: int
    rows_rejected: int
    open_rejects: int
    last_finished_at: datetime | None


class FileEntry(Struct, frozen=True):
    """An entry of the ledger."""

    file_id: int
    name: str
    kind: str | None
    state: str
    rows_read: int
    rows_inserted: int
    rows_duplicate: int
    rows_rejected: int
    finished_at: datetime
    error: str | None


class Locks(Struct, frozen=True):
    """max_locks_per_transaction and the days of a table that may have partitions with it.

    wanted is the setting that allows the most days that are useful, wanted_days.
    """

    setting: int
    days: int
    wanted: int
    wanted_days: int


def totals(connection: Connection) -> Totals:
    """Adds up the totals of the ledger; of its entries only the failed ones are read."""
    rows = _rows(
        connection,
        f"""
        SELECT coalesce(sum(files) FILTER (WHERE state = 'loaded'), 0)::bigint AS loaded_files,
               coalesce(sum(files) FILTER (WHERE state = 'failed'), 0)::bigint AS failed_files,
               coalesce(sum(files) FILTER (WHERE state = 'recalled'), 0)::bigint AS recalled_files,
               (SELECT count(*) FROM mobileye_data.ingested_files f
                WHERE {IS_OPEN})                                  AS open_failures,
               coalesce(sum(rows_read), 0)::bigint                AS rows_read,
               coalesce(sum(rows_inserted), 0)::bigint            AS rows_inserted,
               coalesce(sum(rows_duplicate), 0)::bigint           AS rows_duplicate,
               coalesce(sum(rows_rejected), 0)::bigint            AS rows_rejected,
               coalesce(sum(rows_rejected - rejects_resolved), 0)::bigint AS open_rejects,
               (SELECT max(finished_at)
                FROM mobileye_data.ingested_files)                AS last_finished_at
        FROM mobileye_data.ledger_totals
        """,
    )
    return Totals(**rows[0])


def last_files(connection: Connection, count: int, *states: str) -> list[FileEntry]:
    """Returns the last finished files, or those with one of the states, the newest first."""
    rows = _rows(
        connection,
        """
        SELECT file_id, name, kind, state, rows_read, rows_inserted, rows_duplicate,
               rows_rejected, finished_at, error
        FROM mobileye_data.ingested_files
        WHERE state = ANY (%s)
        ORDER BY finished_at DESC
        LIMIT %s
        """,
        list(states or ("loaded", "failed", "recalled")),
        count,
    )
    return [FileEntry(**row) for row in rows]


def open_failures(connection: Connection, count: int) -> list[str]:
    """Returns the names of the last failed files that nobody has dealt with."""
    rows = _rows(
        connection,
        f"""
        SELECT f.last_name
        FROM mobileye_data.ingested_files f
        WHERE {IS_OPEN}
        ORDER BY f.finished_at DESC
        LIMIT %s
        """,
        count,
    )
    return [row["last_name"] for row in rows]


def keeps_commits(connection: Connection) -> bool:
    """Returns whether the server runs with fsync=on, so that commits survive a crash of its machine."""
    return bool(_rows(connection, "SELECT current_setting('fsync')::bool AS is_on")[0]["is_on"])


def connections_allowed(connection: Connection) -> int:
    """Returns how many connections the server, the database and the role allow, without the reserved ones."""
    rows = _rows(
        connection,
        """
        SELECT least(current_setting('max_connections')::integer
                         - current_setting('superuser_reserved_connections')::integer
                         - coalesce(current_setting('reserved_connections', true)::integer, 0),
                     nullif(datconnlimit, -1), nullif(rolconnlimit, -1)) AS allowed
        FROM pg_database, pg_roles
        WHERE datname = current_database() AND rolname = current_user
        """,
    )
    return int(rows[0]["allowed"])


def locks(connection: Connection) -> Locks:
    rows = _rows(
        connection,
        """
        SELECT current_setting('max_locks_per_transaction')::integer AS setting,
               mobileye_data.most_days()                             AS days,
               min(tried)                                            AS wanted,
               mobileye_data.most_days(max(tried))                   AS wanted_days
        FROM (SELECT 1 << n AS tried FROM generate_series(6, 20) n) doubled
        WHERE mobileye_data.most_days(tried) = mobileye_data.most_days(1 << 20)
        """,
    )
    return Locks(**rows[0])


def _rows(connection: Connection, statement: str, *values: object) -> list[dict[str, Any]]:
    with translate_errors(), connection.cursor() as cursor:
        cursor.execute(statement, values)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
