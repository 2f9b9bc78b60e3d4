"""Queries of the status command, on a database with loaded and failed files."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from psycopg2.extensions import connection as Connection

from db import queries
from db.connection import Database
from processing.errors import DatabaseUnavailable, Misconfigured
from tests.db.loading import delivery, load, sink_to
from tests.support import query, report, statuses

EMPTY = queries.Totals(
    loaded_files=0,
    failed_files=0,
    recalled_files=0,
    open_failures=0,
    rows_read=0,
    rows_inserted=0,
    rows_duplicate=0,
    rows_rejected=0,
    open_rejects=0,
    last_finished_at=None,
)


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with closing(database.connect()) as connection:
        yield connection


@pytest.fixture
def busy(database: Database) -> Database:
    """Two files loaded, then two failed."""
    with sink_to(database) as sink:
        load(sink, statuses(report(1), report(1), report(1, "parking"), {}))
        load(sink, statuses(report(2)))
        sink.record_failure(delivery(b"a", "a.json"), None, "no JSON")
        sink.record_failure(delivery(b"b", "b.json"), "vehicles_status", "no end")
    return database


def test_totals_of_an_empty_database_are_zero(connection: Connection) -> None:
    assert queries.totals(connection) == EMPTY
    assert queries.last_files(connection, 5) == queries.last_files(connection, 5, "failed") == []


def test_totals_add_up_files_and_records(busy: Database, connection: Connection) -> None:
    query(busy.url, "UPDATE mobileye_data.rejected_records SET resolved_at = now() WHERE reason = 'invalid'")
    totals = queries.totals(connection)
    assert (totals.loaded_files, totals.failed_files, totals.open_failures) == (2, 2, 2)
    assert (totals.rows_read, totals.rows_inserted, totals.rows_duplicate, totals.rows_rejected) == (
        5,
        2,
        1,
        2,
    )
    assert totals.open_rejects == 1
    assert totals.last_finished_at is not None
    assert abs(totals.last_finished_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_last_files_come_newest_first(busy: Database, connection: Connection) -> None:
    found = queries.last_files(connection, 3)
    assert [(entry.name, entry.state, entry.kind) for entry in found] == [
        ("b.json", "failed", "vehicles_status"),
        ("a.json", "failed", None),
        ("x.json", "loaded", "vehicles_status"),
    ]
    assert (found[2].rows_read, found[2].rows_inserted, found[2].error) == (1, 1, None)


def test_the_last_failures_come_newest_first(busy: Database, connection: Connection) -> None:
    found = queries.last_files(connection, 5, "failed")
    assert [(entry.name, entry.error) for entry in found] == [("b.json", "no end"), ("a.json", "no JSON")]
    assert [entry.name for entry in queries.last_files(connection, 1, "failed")] == ["b.json"]


def test_missing_tables_are_misconfigured(empty_database: Database) -> None:
    with (
        closing(empty_database.connect()) as connection,
        pytest.raises(Misconfigured, match="does not exist"),
    ):
        queries.totals(connection)


def test_a_lost_connection_is_infrastructure(database: Database, connection: Connection) -> None:
    query(database.url, "SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
    with pytest.raises(DatabaseUnavailable):
        queries.totals(connection)
