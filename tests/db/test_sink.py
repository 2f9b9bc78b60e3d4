"""Transactions of a PostgresSink on a real server that is ill, held up, or taken away."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

import db.chunk
import db.session
import db.writer
from db import schema
from db.connection import Database
from db.sink import PostgresSink, PostgresTransaction
from processing.errors import DatabaseUnavailable, Misconfigured, TryAgain
from processing.sink import Counts
from tests.db.loading import count, counts, delivery, load, sink_to, write, write_rows
from tests.support import Server, detections, event, query, report, running_server, statuses, until

ONE, TWO = statuses(report(1)), statuses(report(2))
REPORTS = [report(i % 3600, vehicle=f"car-{i // 3600}") for i in range(25_000)]
MANY = statuses(*REPORTS)


@pytest.fixture
def sink(database: Database) -> Iterator[PostgresSink]:
    with sink_to(database) as sink:
        yield sink


def name_of(database: Database) -> str:
    return str(parse_dsn(database.url)["dbname"])


def backends(database: Database) -> list[int]:
    statement = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return [pid for (pid,) in query(database.url, statement)]


def terminate_all(database: Database) -> None:
    def none_is_left() -> bool:
        # Again, because a transaction may open its second connection meanwhile.
        for pid in backends(database):
            query(database.url, "SELECT pg_terminate_backend(%s)", (pid,))
        return not backends(database)

    until(none_is_left)


def is_waiting(database: Database) -> bool:
    return bool(query(database.url, "SELECT 1 FROM pg_locks WHERE NOT granted"))


def is_nothing_left(database: Database) -> bool:
    return set(counts(database).values()) == {0}


def test_counts_come_back_in_the_order_of_the_files(sink: PostgresSink) -> None:
    assert load(sink, ONE, detections(event()), statuses(report(1), report(3), {})) == [
        Counts(1, 1, 0, 0),
        Counts(2, 2, 0, 0),
        Counts(3, 1, 1, 1),
    ]


def test_one_connection_serves_all_transactions(database: Database, sink: PostgresSink) -> None:
    load(sink, ONE)
    before = sorted(backends(database))
    load(sink, TWO)
    assert sorted(backends(database)) == before
    assert len(before) == 1


def test_a_second_connection_is_there_only_while_a_transaction_makes_partitions(
    database: Database, sink: PostgresSink
) -> None:
    load(sink, ONE)
    for content, most in ((TWO, 1), (detections(event()), 2)):
        with sink.transaction() as transaction:
            write(transaction, content)
            transaction.finish()
            assert len(backends(database)) == most
            transaction.commit()
        until(lambda: len(backends(database)) == 1)


def test_closing_leaves_no_connection_and_no_thread(database: Database) -> None:
    before = threading.active_count()
    sink = PostgresSink(database)
    load(sink, MANY)
    sink.close()
    until(lambda: not backends(database))
    assert threading.active_count() == before


# What is not committed -------------------------------------------------------------------------------


class Trouble(Exception):
    """Whatever may happen to the one who writes."""


@pytest.mark.parametrize("content", [ONE, MANY], ids=["one", "many"])
def test_nothing_is_left_of_what_was_not_committed(
    database: Database, sink: PostgresSink, content: bytes
) -> None:
    with pytest.raises(Trouble), sink.transaction() as transaction:
        write(transaction, content)
        raise Trouble
    with sink.transaction() as transaction:
        write(transaction, content)
    assert is_nothing_left(database)
    load(sink, content)
    assert count(database, "ingested_files") == 1


@pytest.mark.usefixtures("small_chunks")
def test_nothing_is_left_of_a_copy_that_was_stopped_in_the_middle(
    database: Database, sink: PostgresSink
) -> None:
    foreign = "INSERT INTO mobileye_data.vehicle_status_history VALUES ('car-1', %s, 'x', NULL, 1)"
    load(sink, ONE)  # the day has its partition
    before = counts(database)
    with closing(psycopg2.connect(database.url)) as other, other.cursor() as cursor:
        cursor.execute(foreign, ("2022-05-05T22:40:00.546Z",))  # a key in the middle of the first chunk
        with pytest.raises(Trouble), sink.transaction() as transaction:
            write(transaction, statuses(*REPORTS[:12_000]))
            raise Trouble
    until(lambda: len(backends(database)) == 0)
    assert counts(database) == before
    load(sink, MANY)
    assert count(database, "vehicle_status_history") == 25_001


def test_a_transaction_that_failed_unnoticed_is_not_taken_for_committed(
    database: Database, sink: PostgresSink
) -> None:
    with pytest.raises(DatabaseUnavailable), sink.transaction() as transaction:
        write(transaction, ONE)
        with transaction._connection.cursor() as cursor, pytest.raises(psycopg2.Error):
            cursor.execute("SELECT 1/0")
        transaction.commit()
    assert is_nothing_left(database)


@pytest.mark.parametrize("end", ["ROLLBACK", "COMMIT"])
def test_a_transaction_that_ended_unnoticed_is_not_taken_for_committed(
    database: Database, sink: PostgresSink, end: str
) -> None:
    with pytest.raises(DatabaseUnavailable, match="lost before COMMIT"), sink.transaction() as transaction:
        transaction.loaded([])
        with transaction._connection.cursor() as cursor:
            cursor.execute(end)
        transaction.commit()
    assert not transaction.committed


def test_rows_are_not_seen_before_commit(database: Database, sink: PostgresSink) -> None:
    with sink.transaction() as transaction:
        write(transaction, MANY)
        transaction._writer.finish()
        assert is_nothing_left(database)
        transaction.commit()
    assert count(database, "vehicle_status_history") == 25_000


def test_a_failure_is_recorded_durably(database: Database, sink: PostgresSink) -> None:
    sink.record_failure(delivery(ONE, "bad.json"), None, "expected more")
    assert query(database.url, "SELECT name, state, error FROM mobileye_data.ingested_files") == [
        ("bad.json", "failed", "expected more")
    ]


def test_bytes_that_come_again_within_a_transaction_are_counted(
    database: Database, sink: PostgresSink
) -> None:
    with sink.transaction() as transaction:
        write(transaction, ONE)
        transaction.redelivered(delivery(ONE, "again.json"))
        transaction.commit()
    assert query(database.url, "SELECT deliveries, last_name FROM mobileye_data.ingested_files") == [
        (2, "again.json")
    ]


# Trouble with the server -----------------------------------------------------------------------------

#: Each breaks what the sink needs, in the middle of a transaction or before it; then fixes it.
Break = Callable[[Server, Database], Callable[[], object]]


def by_terminating(server: Server, database: Database) -> Callable[[], object]:
    terminate_all(database)
    return lambda: None


def by_dropping_the_table(server: Server, database: Database) -> Callable[[], object]:
    query(database.url, "ALTER TABLE mobileye_data.ingested_files RENAME TO gone")
    return lambda: query(database.url, "ALTER TABLE mobileye_data.gone RENAME TO ingested_files")


def by_writing_no_more(server: Server, database: Database) -> Callable[[], object]:
    name = name_of(database)
    server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    terminate_all(database)
    return lambda: server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")


def by_closing_the_doors(server: Server, database: Database) -> Callable[[], object]:
    name = name_of(database)
    server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    server.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'")
    return lambda: server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def by_renaming_the_database(server: Server, database: Database) -> Callable[[], object]:
    name = name_of(database)
    by_closing_the_doors(server, database)()
    server.execute(f"ALTER DATABASE {name} RENAME TO {name}_gone")
    return lambda: server.execute(f"ALTER DATABASE {name}_gone RENAME TO {name}")


BREAKS: dict[Break, type[Exception]] = {
    by_terminating: DatabaseUnavailable,
    by_dropping_the_table: Misconfigured,
    by_writing_no_more: DatabaseUnavailable,
    by_closing_the_doors: DatabaseUnavailable,
    by_renaming_the_database: Misconfigured,
}


@pytest.mark.parametrize("broken", BREAKS, ids=[broken.__name__ for broken in BREAKS])
def test_after_trouble_between_transactions_the_sink_works_again(
    server: Server, database: Database, sink: PostgresSink, broken: Break
) -> None:
    load(sink, ONE)
    fix = broken(server, database)
    raised = []
    for _ in range(2):
        with pytest.raises((DatabaseUnavailable, Misconfigured)) as error:
            load(sink, TWO)
            raise DatabaseUnavailable  # a terminated connection is replaced at the second try
        raised.append(type(error.value))
    fix()
    assert BREAKS[broken] in raised
    load(sink, statuses(report(3)))
    expected = 3 if broken is by_terminating else 2
    assert count(database, "vehicle_status_history") == expected


@pytest.mark.parametrize("content", [TWO, MANY], ids=["one", "many"])
def test_after_trouble_within_a_transaction_nothing_is_left_and_the_sink_works_again(
    database: Database, sink: PostgresSink, content: bytes
) -> None:
    with pytest.raises(DatabaseUnavailable), sink.transaction() as transaction:
        write(transaction, content)
        terminate_all(database)
        transaction.commit()
    assert is_nothing_left(database)
    load(sink, content)
    assert count(database, "ingested_files") == 1


def test_a_server_that_is_restarted_costs_a_try_for_each_outage() -> None:
    with running_server("fsync=off") as server:
        database = Database(server.url())
        with closing(database.connect()) as connection:
            schema.apply(connection)
        with sink_to(database) as sink:
            load(sink, ONE)
            server.stop()
            for _ in range(3):
                with pytest.raises(DatabaseUnavailable):
                    load(sink, TWO)
            server.start("fsync=off")
            load(sink, TWO)
            assert count(database, "vehicle_status_history") == 2


def test_a_revoked_right_needs_a_person(server: Server, database: Database) -> None:
    user = f"loader_{name_of(database)}"
    server.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'hush'")
    try:
        query(database.url, grants(user))
        with sink_to(Database(server.url(name_of(database), user, "hush"))) as sink:
            load(sink, ONE)
            query(database.url, f"REVOKE INSERT ON mobileye_data.vehicle_status FROM {user}")
            with pytest.raises(Misconfigured, match="permission denied for table vehicle_status"):
                load(sink, TWO)
            query(database.url, f"GRANT INSERT ON mobileye_data.vehicle_status TO {user}")
            load(sink, TWO)
        assert count(database, "vehicle_status_history") == 2
    finally:
        query(database.url, f"REASSIGN OWNED BY {user} TO tester; DROP OWNED BY {user}")
        server.execute(f"DROP ROLE {user}")


def grants(user: str) -> str:
    """All that loading needs, if somebody else owns the tables and makes the partitions beforehand."""
    return f"""
        SELECT mobileye_data.add_partition('vehicle_status_history', '2022-05-05');
        GRANT USAGE ON SCHEMA mobileye_data TO {user};
        GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA mobileye_data TO {user};
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA mobileye_data TO {user};
        """


# Other sessions --------------------------------------------------------------------------------------


@pytest.fixture
def second_sink(database: Database) -> Iterator[PostgresSink]:
    with sink_to(database) as sink:
        yield sink


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


def test_the_second_of_two_that_load_the_same_file_waits_and_tries_again(
    database: Database, sink: PostgresSink, second_sink: PostgresSink, threads: ThreadPoolExecutor
) -> None:
    with sink.transaction() as transaction:
        write(transaction, ONE)
        transaction._writer.finish()
        late = threads.submit(load, second_sink, ONE)
        until(lambda: is_waiting(database))
        transaction.commit()
    assert type(late.exception(20)) is TryAgain
    with second_sink.transaction() as again:
        assert again.loaded([delivery(ONE).sha256 or b""]) == {delivery(ONE).sha256}
    assert count(database, "vehicle_status_history") == 1


def test_the_second_loads_the_file_if_the_first_gives_up(
    database: Database, sink: PostgresSink, second_sink: PostgresSink, threads: ThreadPoolExecutor
) -> None:
    with sink.transaction() as transaction:
        write(transaction, ONE)
        transaction._writer.finish()
        late = threads.submit(load, second_sink, ONE)
        until(lambda: is_waiting(database))
    assert late.result(20) == [Counts(1, 1, 0, 0)]


def test_the_same_record_from_two_sessions_is_inserted_once(
    database: Database, sink: PostgresSink, second_sink: PostgresSink, threads: ThreadPoolExecutor
) -> None:
    with sink.transaction() as transaction:
        write(transaction, statuses(report(1), report(2)))
        transaction._writer.finish()
        late = threads.submit(load, second_sink, statuses(report(2), report(1, "parking"), report(3)))
        until(lambda: is_waiting(database))
        transaction.commit()
    assert late.result(20) == [Counts(3, 1, 1, 1, conflict=1)]
    assert query(database.url, "SELECT status FROM mobileye_data.vehicle_status") == [("driving",)]


def test_one_of_two_that_lock_each_other_out_tries_again_and_all_rows_are_there_once(
    database: Database,
    sink: PostgresSink,
    second_sink: PostgresSink,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(db.chunk, "CHUNK_ROWS", 1)
    monkeypatch.setitem(db.session._SETTINGS, "deadlock_timeout", "'50ms'")
    meeting = threading.Barrier(2)
    x, y = report(1, vehicle="x"), report(1, vehicle="y")
    crossing = [
        threads.submit(load_and_meet, sink, statuses(x, y), meeting),
        threads.submit(load_and_meet, second_sink, statuses(y, x), meeting),
    ]
    errors = [future.exception(20) for future in crossing]
    assert [type(error) for error in errors if error] == [TryAgain]
    loser, content = (sink, statuses(x, y)) if errors[0] else (second_sink, statuses(y, x))
    assert load(loser, content) == [Counts(2, 0, 2, 0)]
    assert count(database, "vehicle_status_history") == 2


def load_and_meet(sink: PostgresSink, content: bytes, meeting: threading.Barrier) -> None:
    """Both hold their first row before either sends its second."""
    with sink.transaction() as transaction:
        transaction_write = transaction.write

        def write_and_meet(parsed: object) -> None:
            transaction_write(parsed)  # type: ignore[arg-type]
            if transaction.entries[-1].read == 1:
                transaction._writer.wait()
                meeting.wait(20)

        transaction.write = write_and_meet  # type: ignore[method-assign]
        write(transaction, content)
        transaction.commit()


def test_sessions_that_load_overlapping_files_at_once_insert_every_row_once(
    database: Database, threads: ThreadPoolExecutor
) -> None:
    files = [statuses(*[report(i + j, vehicle=f"car-{j % 7}") for j in range(30)]) for i in range(0, 60, 3)]

    def load_all(order: int) -> list[Counts]:
        with sink_to(database) as sink:
            return [counted for content in files[::order] for counted in tried(sink, content)]

    both = [counted for done in threads.map(load_all, (1, -1)) for counted in done]
    rows = {(j % 7, i + j) for i in range(0, 60, 3) for j in range(30)}
    assert count(database, "vehicle_status_history") == sum(counted.inserted for counted in both) == len(rows)
    assert len(both) == count(database, "ingested_files") == len(files)
    assert sum(counted.rejected for counted in both) == 0


def tried(sink: PostgresSink, content: bytes) -> list[Counts]:
    """Until it is loaded, by this session or another."""
    while True:
        try:
            with sink.transaction() as transaction:
                if transaction.loaded([delivery(content).sha256 or b""]):
                    return []
                write_rows(transaction, content)
                return transaction.commit()
        except TryAgain:
            continue


def test_stop_leaves_no_thread_on_the_connection(database: Database, sink: PostgresSink) -> None:
    with sink.transaction() as transaction:
        write(transaction, MANY)
        assert isinstance(transaction, PostgresTransaction)
    assert sink._sender._work_queue.empty()
    load(sink, MANY)
    assert count(database, "vehicle_status_history") == 25_000
