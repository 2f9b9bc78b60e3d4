"""The ledger on a real server, with a second session in the way where there may be one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from msgspec.structs import replace
from psycopg2.extensions import connection as Connection

from db import ledger
from db.connection import Database
from db.ledger import Entry
from processing.errors import TryAgain
from processing.records import Reason
from processing.sink import Counts, Delivery
from tests.db.loading import delivery
from tests.support import query, until

GOOD = delivery(b"good", "good.json")
UNREAD = Delivery(None, "pipe.json", 0, GOOD.started_at)


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with closing(database.connect()) as connection:
        yield connection


@pytest.fixture
def second(database: Database) -> Iterator[Connection]:
    with closing(database.connect()) as connection:
        yield connection


def entry(connection: Connection, of: Delivery = GOOD, **numbers: Any) -> Entry:
    with connection.cursor() as cursor:
        (file_id,), *_ = ledger.draw_file_ids(cursor, 1)
    return Entry(file_id, of, "vehicles_status", **numbers)


def add(connection: Connection, *deliveries: Delivery) -> None:
    with connection.cursor() as cursor:
        ledger.add(cursor, [entry(connection, of) for of in deliveries])


def fail(connection: Connection, of: Delivery, reason: str = "bad") -> None:
    with connection, connection.cursor() as cursor:
        ledger.fail(cursor, of, None, reason)


def rows(database: Database, columns: str) -> list[tuple[Any, ...]]:
    return query(database.url, f"SELECT {columns} FROM mobileye_data.ingested_files ORDER BY file_id")


def is_waiting(database: Database) -> bool:
    return bool(query(database.url, "SELECT 1 FROM pg_locks WHERE NOT granted"))


class Started(threading.Thread):
    """A step that may have to wait; its error is kept."""

    def __init__(self, step: Callable[[], None]) -> None:
        super().__init__()
        self._step = step
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._step()
        except Exception as error:  # noqa: BLE001
            self.error = error


def test_counts_are_what_was_read_less_what_was_not_inserted() -> None:
    entry = Entry(1, GOOD, "x", read=9, duplicate=2, rejected=4, conflict=2, refused=1)
    assert entry.counts == Counts(9, 3, 2, 4, conflict=2, refused=1)
    assert [entry.counts.rejected_for(reason) for reason in Reason] == [1, 2, 1]


def test_file_ids_are_new_each_time(connection: Connection) -> None:
    with connection.cursor() as cursor:
        first, *_ = ledger.draw_file_ids(cursor, 3)
        connection.rollback()
        assert len({*first, *ledger.draw_file_ids(cursor, 3)[0]}) == 6


def test_an_entry_holds_what_became_of_the_file(connection: Connection, database: Database) -> None:
    with connection, connection.cursor() as cursor:
        ledger.add(cursor, [entry(connection, read=9, duplicate=2, rejected=3)])
    assert rows(
        database,
        "name, last_name, size, kind, state, rows_read, rows_inserted, rows_duplicate, rows_rejected",
    ) == [("good.json", "good.json", 4, "vehicles_status", "loaded", 9, 4, 2, 3)]


def test_only_what_is_loaded_is_loaded(connection: Connection) -> None:
    bad, new = delivery(b"bad"), delivery(b"new")
    fail(connection, bad)
    add(connection, GOOD)
    with connection.cursor() as cursor:
        digests = [found.sha256 or b"" for found in (GOOD, bad, new)]
        assert ledger.loaded(cursor, digests) == {GOOD.sha256}


def test_thousands_of_files_are_entered_at_once(connection: Connection, database: Database) -> None:
    with connection, connection.cursor() as cursor:
        numbers, *_ = ledger.draw_file_ids(cursor, 2500)
        entries = [Entry(n, delivery(b"%d" % n), "x") for n in numbers]
        ledger.add(cursor, entries)
    assert rows(database, "file_id") == [(number,) for number in sorted(numbers)]


def test_bytes_that_another_session_has_loaded_are_reported(
    connection: Connection, second: Connection
) -> None:
    with second:
        add(second, GOOD)
    with pytest.raises(TryAgain):
        add(connection, delivery(b"other"), GOOD)


def test_bytes_that_another_session_is_loading_are_waited_for(
    connection: Connection, second: Connection, database: Database
) -> None:
    add(second, GOOD)
    waiting = Started(lambda: add(connection, GOOD))
    until(lambda: is_waiting(database))
    second.commit()
    waiting.join()
    assert isinstance(waiting.error, TryAgain)
    connection.rollback()
    assert rows(database, "state, deliveries") == [("loaded", 1)]


def test_bytes_that_another_session_gives_up_are_entered(
    connection: Connection, second: Connection, database: Database
) -> None:
    add(second, GOOD)
    waiting = Started(lambda: add(connection, GOOD))
    until(lambda: is_waiting(database))
    second.rollback()
    waiting.join()
    assert waiting.error is None
    connection.commit()
    assert rows(database, "state, deliveries") == [("loaded", 1)]


def test_files_are_entered_in_the_order_of_their_digests(connection: Connection, database: Database) -> None:
    """Two sessions that enter the same files then wait for each other in the same order."""
    files = [delivery(b"%d" % i) for i in range(50)]
    with connection:
        add(connection, *files)
    found = query(
        database.url, "SELECT encode(sha256, 'hex') FROM mobileye_data.ingested_files ORDER BY ctid"
    )
    assert found == sorted(found)


def test_a_failed_file_that_is_loaded_is_the_same_entry(connection: Connection, database: Database) -> None:
    fail(connection, GOOD)
    with connection:
        add(connection, replace(GOOD, name="again.json"))
    assert rows(database, "state, error, deliveries, name, last_name, kind") == [
        ("loaded", None, 2, "good.json", "again.json", "vehicles_status")
    ]


def test_a_file_that_fails_again_counts_a_delivery_once(connection: Connection, database: Database) -> None:
    fail(connection, GOOD, "first")
    fail(connection, replace(GOOD, name="again.json"), "second")
    assert rows(database, "state, error, deliveries, name, last_name") == [
        ("failed", "second", 2, "good.json", "again.json")
    ]


def test_a_file_that_could_not_be_read_is_one_entry_however_often_it_is_tried(
    connection: Connection, database: Database
) -> None:
    for _ in range(3):
        fail(connection, UNREAD)
    fail(connection, replace(UNREAD, name="other.json"))
    fail(connection, replace(UNREAD, size=1))
    assert rows(database, "name, size, deliveries") == [
        ("pipe.json", 0, 3),
        ("other.json", 0, 1),
        ("pipe.json", 1, 1),
    ]


def test_a_loaded_file_that_fails_stays_loaded(connection: Connection, database: Database) -> None:
    with connection:
        add(connection, GOOD)
    before = rows(database, "state, error, finished_at, rows_read")
    fail(connection, GOOD, "killed its worker")
    assert rows(database, "state, error, finished_at, rows_read") == before
    assert rows(database, "deliveries") == [(2,)]


def test_a_failure_waits_for_a_session_that_is_loading_the_same_bytes(
    connection: Connection, second: Connection, database: Database
) -> None:
    add(second, GOOD)
    waiting = Started(lambda: fail(connection, GOOD))
    until(lambda: is_waiting(database))
    second.commit()
    waiting.join()
    assert waiting.error is None
    assert rows(database, "state, error") == [("loaded", None)]


def test_another_arrival_is_counted_under_its_name(connection: Connection, database: Database) -> None:
    with connection:
        add(connection, GOOD, delivery(b"other"))
    with connection, connection.cursor() as cursor:
        ledger.redelivered(cursor, replace(GOOD, name="again.json"))
    assert rows(database, "deliveries, name, last_name") == [
        (2, "good.json", "again.json"),
        (1, "x.json", "x.json"),
    ]


def test_a_name_with_quotes_and_percent_signs_is_just_a_name(
    connection: Connection, database: Database
) -> None:
    name = "a'b\"c\\d%s%(x)s;--.json"
    fail(connection, replace(UNREAD, name=name), name)
    assert rows(database, "name, error") == [(name, name)]


def test_an_entry_is_not_there_before_commit(connection: Connection, database: Database) -> None:
    add(connection, GOOD)
    assert rows(database, "file_id") == []
    connection.rollback()
    assert connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE
