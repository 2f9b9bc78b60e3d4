"""Queries for what a person sees of the present: failures, rejects, sessions, rows without a day."""

from datetime import datetime
from typing import Any, cast

from msgspec import Struct
from psycopg2.extensions import connection as Connection

from db.failures import IS_OPEN
from db.tables import DETECTIONS, TABLES, Tables

#: Beyond this many, rows are not counted: that would take as long as reading them.
MOST_COUNTED = 100_000


class Failure(Struct, frozen=True):
    """A failed file that nobody has dealt with."""

    name: str
    failed_at: datetime
    reason: str


class OpenReject(Struct, frozen=True):
    """A rejected record that no replay has loaded."""

    file: str
    path: str
    reason: str
    detail: str
    rejected_at: datetime


class Sessions(Struct, frozen=True):
    """The sessions of daemons and commands, and how many of them are in a transaction."""

    all: int
    busy: int


class Server(Struct, frozen=True):
    """The server that answers, and since when it does."""

    version: str
    database: str
    bytes: int
    since: datetime


def open_failures(connection: Connection, most: int) -> list[Failure]:
    """Returns the newest failures that are open."""
    statement = f"""
        SELECT f.last_name, f.finished_at, coalesce(f.error, '')
        FROM mobileye_data.ingested_files f
        WHERE {IS_OPEN}
        ORDER BY f.finished_at DESC
        LIMIT %s
    """
    return [Failure(*row) for row in _rows(connection, statement, most)]


def open_rejects(connection: Connection, most: int) -> list[OpenReject]:
    """Returns the newest rejects that are open."""
    statement = """
        SELECT f.name, r.path, r.reason, r.detail, r.rejected_at
        FROM (SELECT * FROM mobileye_data.rejected_records
              WHERE resolved_at IS NULL ORDER BY rejected_at DESC, file_id, position LIMIT %s) r
        JOIN mobileye_data.ingested_files f USING (file_id)
        ORDER BY r.rejected_at DESC, r.file_id, r.position
    """
    return [OpenReject(*row) for row in _rows(connection, statement, most)]


def open_reject_counts(connection: Connection) -> dict[str, int]:
    """Returns how many rejects are open, by reason, the most frequent first."""
    statement = """
        SELECT reason, count(*) FROM mobileye_data.rejected_records
        WHERE resolved_at IS NULL GROUP BY reason ORDER BY 2 DESC, 1
    """
    return dict(_rows(connection, statement))


def sessions(connection: Connection) -> Sessions:
    """Returns the sessions of our programs but the asking one."""
    statement = """
        SELECT count(*), count(xact_start) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'mobileye-data' AND pid <> pg_backend_pid()
    """
    ((all_, busy),) = _rows(connection, statement)
    return Sessions(all_, busy)


def server(connection: Connection) -> Server:
    statement = """
        SELECT current_setting('server_version'), current_database(), pg_database_size(current_database()),
               pg_postmaster_start_time()
    """
    ((version, database, size, since),) = _rows(connection, statement)
    return Server(version.partition(" ")[0], database, size, since)


def rows_without_a_day(connection: Connection, tables: Tables = TABLES) -> dict[str, int]:
    """Returns how many rows are in the partition "other" of each table, counted up to MOST_COUNTED + 1."""
    counts = {}
    for table in tables.values():
        statement = f"SELECT count(*) FROM (SELECT FROM {table.full_name}_other LIMIT %s) counted"
        ((counts[table.name],),) = _rows(connection, statement, MOST_COUNTED + 1)
    return counts


def newest_day(connection: Connection) -> datetime | None:
    """Returns the newest day whose partition has detections; rows in "other" are not looked at."""
    statement = """
        SELECT day::timestamp AT TIME ZONE 'UTC', to_char(day, 'YYYYMMDD')
        FROM mobileye_data.days_before(%s, 'infinity') AS day
        ORDER BY 1 DESC
    """
    for day, ending in _rows(connection, statement, DETECTIONS.name):
        if _rows(connection, f"SELECT FROM {DETECTIONS.full_name}_{ending} LIMIT 1"):
            return cast(datetime, day)
    return None


def _rows(connection: Connection, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()
