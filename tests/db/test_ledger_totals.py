"""The totals of the ledger are the sums over its entries, whatever happened to these, and however often."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection

from db import audit, ledger, queries, schema
from db.connection import Database
from db.failures import dismiss
from db.sink import PostgresSink
from tests.db.loading import delivery, load, sink_to, write, write_rows
from tests.support import ROOT, query, report, statuses

SCHEMA = "SET search_path = mobileye_data"

SUMS = """
    SELECT count(*) FILTER (WHERE state = 'loaded'), count(*) FILTER (WHERE state = 'failed'),
           coalesce(sum(rows_read), 0), coalesce(sum(rows_inserted), 0), coalesce(sum(rows_duplicate), 0),
           coalesce(sum(rows_rejected), 0),
           (SELECT count(*) FROM mobileye_data.rejected_records WHERE resolved_at IS NULL)
    FROM mobileye_data.ingested_files
"""


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with closing(database.connect(autocommit=True)) as connection:
        yield connection


def check(connection: Connection) -> None:
    """Compares the totals with the sums, and with what verify says."""
    found = queries.totals(connection)
    with connection.cursor() as cursor:
        cursor.execute(SUMS)
        assert cursor.fetchall() == [
            (
                found.loaded_files,
                found.failed_files,
                found.rows_read,
                found.rows_inserted,
                found.rows_duplicate,
                found.rows_rejected,
                found.open_rejects,
            )
        ]
        assert list(audit.wrong_totals(cursor)) == []


def content(number: int) -> bytes:
    """A file of a new report, one that many files have, and a reject."""
    return statuses(report(number), report(99), {})


Step = Callable[[PostgresSink, Connection, int], object]


def _execute(statement: str) -> Step:
    def step(sink: PostgresSink, connection: Connection, number: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement, {"number": number})

    return step


def _roll_back(sink: PostgresSink, connection: Connection, number: int) -> None:
    with sink.transaction() as transaction:
        write(transaction, content(number + 1000))
        transaction.prepare()


def _load(sink: PostgresSink, connection: Connection, *numbers: int) -> None:
    """As the daemon does: bytes that are loaded already are only counted."""
    with sink.transaction() as transaction:
        arrived = [delivery(content(number)) for number in numbers]
        loaded = transaction.loaded([each.sha256 or b"" for each in arrived])
        for number, each in zip(numbers, arrived, strict=True):
            if each.sha256 in loaded:
                transaction.redelivered(each)
            else:
                write_rows(transaction, content(number))
        transaction.commit()


def _fold(sink: PostgresSink, connection: Connection, number: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO mobileye_data.ledger_totals SELECT 'loaded' FROM generate_series(1, 200)")
        ledger.fold_totals(cursor)


STEPS: dict[str, Step] = {
    "load": _load,
    "load two": lambda sink, connection, number: _load(sink, connection, number, number + 100),
    "fail": lambda sink, _, number: sink.record_failure(delivery(content(number)), None, "no"),
    "fail unread": lambda sink, _, number: sink.record_failure(delivery(b"", f"{number}.json"), None, "no"),
    "dismiss": lambda _, connection, number: dismiss(connection.cursor(), "x.json", None, "me"),
    "roll back": _roll_back,
    "fold": _fold,
    "resolve": _execute(
        "UPDATE mobileye_data.rejected_records SET resolved_at = now() WHERE file_id %% 2 = 0"
    ),
    "open": _execute("UPDATE mobileye_data.rejected_records SET resolved_at = NULL"),
    "edit": _execute("UPDATE mobileye_data.rejected_records SET edited = '{}'"),
    "recall": _execute(
        """
        WITH entry AS (DELETE FROM mobileye_data.ingested_files
                       WHERE file_id = (SELECT max(file_id) FROM mobileye_data.ingested_files)
                       RETURNING file_id)
        DELETE FROM mobileye_data.rejected_records r USING entry e WHERE r.file_id = e.file_id
        """
    ),
    "empty": _execute("DELETE FROM mobileye_data.ingested_files; DELETE FROM mobileye_data.rejected_records"),
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(1, 4)), max_size=12))
def test_they_are_exact_after_any_steps(
    database: Database, connection: Connection, steps: list[tuple[str, int]]
) -> None:
    STEPS["empty"](None, connection, 0)  # type: ignore[arg-type]  # it only executes
    with sink_to(database) as sink:
        for name, number in steps:
            STEPS[name](sink, connection, number)
    check(connection)


def test_a_failed_file_that_is_loaded_changes_sides(database: Database, connection: Connection) -> None:
    with sink_to(database) as sink:
        STEPS["fail"](sink, connection, 1)
        assert (queries.totals(connection).loaded_files, queries.totals(connection).failed_files) == (0, 1)
        _load(sink, connection, 1)
    assert (queries.totals(connection).loaded_files, queries.totals(connection).failed_files) == (1, 0)
    check(connection)


def test_daemons_that_load_and_fold_at_once_lose_nothing(database: Database, connection: Connection) -> None:
    def work(first: int) -> None:
        with sink_to(database) as sink, closing(database.connect(autocommit=True)) as own:
            for number in range(first, first + 40):
                load(sink, statuses(report(number, vehicle=f"v{first}"), {}))
                _fold(sink, own, number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(0, 4000, 1000)))
    assert queries.totals(connection).loaded_files == 160
    check(connection)


def test_folding_leaves_a_row_for_each_state(database: Database, connection: Connection) -> None:
    with sink_to(database) as sink:
        _load(sink, connection, 1)
        STEPS["fail"](sink, connection, 2)
        _fold(sink, connection, 0)
    rows = "SELECT state, files FROM mobileye_data.ledger_totals ORDER BY state"
    assert query(database.url, rows) == [("failed", 1), ("loaded", 1)]
    check(connection)


def test_nothing_is_added_where_nothing_changes(database: Database, connection: Connection) -> None:
    with sink_to(database) as sink:
        _load(sink, connection, 1)
        STEPS["fail"](sink, connection, 2)
        for _ in range(3):
            _load(sink, connection, 1)
            STEPS["fail"](sink, connection, 2)
    assert query(database.url, "SELECT count(*) FROM mobileye_data.ledger_totals") == [(3,)]


def test_an_older_database_is_counted_when_it_gets_them(empty_database: Database) -> None:
    with closing(empty_database.connect()) as connection:
        schema.apply(connection)
    with sink_to(empty_database) as sink, closing(empty_database.connect(autocommit=True)) as connection:
        _load(sink, connection, 1)
        STEPS["fail"](sink, connection, 2)
        STEPS["resolve"](sink, connection, 0)
        query(
            empty_database.url,
            f"""
            {SCHEMA};
            DROP TABLE ledger_totals;
            DROP FUNCTION count_files CASCADE;
            DROP FUNCTION count_resolved CASCADE
            """,
        )
        query(empty_database.url, (ROOT / "schema.sql").read_text())
        check(connection)
        _load(sink, connection, 3)
        check(connection)


def test_what_does_not_add_up_is_found_and_can_be_counted_again(
    database: Database, connection: Connection
) -> None:
    with sink_to(database) as sink:
        _load(sink, connection, 1)
    query(
        database.url,
        f"{SCHEMA}; INSERT INTO ledger_totals (state, files, rejects_resolved) VALUES ('loaded', 1, 1)",
    )
    with connection.cursor() as cursor:
        found = list(audit.wrong_totals(cursor))
    assert [line.partition(":")[0] for line in found] == [
        "ledger_totals, files loaded",
        "ledger_totals, rejects resolved",
    ]
    query(database.url, f"{SCHEMA}; SELECT recount_totals()")
    check(connection)


# What status asks ---------------------------------------------------------------------------------

_FILL = """
    SET search_path = mobileye_data;
    INSERT INTO ingested_files (file_id, sha256, name, last_name, size, kind, state, rows_read, rows_inserted,
                                rows_rejected, started_at, finished_at)
    SELECT n, decode(md5(n::text), 'hex'), 'f' || n, 'f' || n, 9, 'vehicles_status',
           CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'loaded' END, 12, 11, 1,
           now() - n * interval '1 s', now() - n * interval '1 s'
    FROM generate_series(1, {files}) n;
    INSERT INTO rejected_records (file_id, position, path, reason, detail, original)
    SELECT n, 0, '$', 'invalid', 'no', '{{}}' FROM generate_series(1, {files}) n;
    SELECT fold_totals()
"""


def _plans(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The plans of all that status asks the database."""
    plans: list[str] = []
    ask = queries._rows

    def explained(connection: Connection, statement: str, *values: object) -> list[dict[str, Any]]:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {statement}", values)
            plans.append("\n".join(line for (line,) in cursor.fetchall()))
        return ask(connection, statement, *values)

    monkeypatch.setattr(queries, "_rows", explained)
    with closing(database.connect()) as connection:
        queries.totals(connection)
        queries.last_files(connection, 5)
        queries.last_files(connection, 5, "failed")
        queries.open_failures(connection, 3)
    return plans


@pytest.mark.parametrize("is_analyzed", [True, False])
@pytest.mark.parametrize("files", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_status_reads_no_table_that_grows(
    database: Database, monkeypatch: pytest.MonkeyPatch, files: int, is_analyzed: bool
) -> None:
    query(database.url, _FILL.format(files=files))
    if is_analyzed:
        query(database.url, "ANALYZE")
    plans = "\n".join(_plans(database, monkeypatch))
    assert "Seq Scan on ledger_totals" in plans
    assert "Seq Scan on ingested_files" not in plans and "rejected_records" not in plans
