"""Rows beside what is stored already: which are new, which the same, which others."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone

import pytest
from psycopg2.extensions import cursor as Cursor

from db import stage
from db.connection import Database, RowRefused, translated
from db.stage import Existing
from db.tables import DETECTIONS, STATUS_HISTORY, Table
from processing.errors import TryAgain
from processing.records import Detection, Record, StatusReport

NOON = datetime(2022, 6, 5, 12, tzinfo=UTC)


@pytest.fixture
def cursor(database: Database) -> Iterator[Cursor]:
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        yield cursor


def detection(value: int, extra: str | None = None, second: int = 0, kind: str = "cars") -> Detection:
    return Detection("car", NOON + timedelta(seconds=second), kind, value, extra)


def insert(cursor: Cursor, *records: Record, table: Table = DETECTIONS) -> list[Existing]:
    with translated():
        found = stage.insert_new(cursor, table, [(record, 7) for record in records])
    return sorted(found, key=lambda existing: existing.index)


def stored(cursor: Cursor) -> list[tuple[object, ...]]:
    cursor.execute(
        "SELECT object_value, extra FROM objects_detection_events ORDER BY detection_time, object_type"
    )
    return cursor.fetchall()


def told(*found: Existing) -> list[tuple[int, bool]]:
    return [(existing.index, existing.is_same) for existing in found]


def test_new_rows_are_inserted_and_not_told_of(cursor: Cursor) -> None:
    assert insert(cursor, detection(1), detection(2, second=1), detection(3, kind="signs")) == []
    assert stored(cursor) == [(1, None), (3, None), (2, None)]


def test_of_equal_keys_the_first_counts(cursor: Cursor) -> None:
    found = insert(cursor, detection(1), detection(2), detection(1))
    assert told(*found) == [(1, False), (2, True)]
    assert stored(cursor) == [(1, None)]


def test_what_is_stored_counts_before_all(cursor: Cursor) -> None:
    insert(cursor, detection(1))
    found = insert(cursor, detection(2), detection(2), detection(1), detection(5, second=9))
    assert told(*found) == [(0, False), (1, False), (2, True)]
    assert stored(cursor) == [(1, None), (5, None)]


def test_the_same_instant_is_the_same_key_whatever_its_offset(cursor: Cursor) -> None:
    insert(cursor, detection(1))
    there = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert told(*insert(cursor, Detection("car", there, "cars", 1, None))) == [(0, True)]


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        (None, None, True),
        (None, '{"a": 1}', False),
        ('{"a": 1}', None, False),
        ('{"a": 1, "b": 2}', '{"b":2,"a":1}', True),
        ('{"a": 1}', '{"a": 1.0}', True),
        ('{"a": 1}', '{"a": "1"}', False),
        ('{"a": null}', None, False),
    ],
)
def test_extra_fields_are_a_part_of_the_value(
    cursor: Cursor, first: str | None, second: str | None, is_same: bool
) -> None:
    insert(cursor, detection(1, first))
    assert told(*insert(cursor, detection(1, second))) == [(0, is_same)]


def test_a_detail_tells_what_is_stored(cursor: Cursor) -> None:
    report = StatusReport("car", NOON, "parking", '{"a": "ü"}')
    insert(cursor, report, table=STATUS_HISTORY)
    (found,) = insert(cursor, StatusReport("car", NOON, "driving", None), table=STATUS_HISTORY)
    assert found.detail == (
        'Expected the value stored under this key (status=parking extra={"a": "ü"}), got another'
    )


def test_both_tables_may_be_used_in_one_transaction_and_again_in_the_next(cursor: Cursor) -> None:
    for expected in ([], [(0, True)]):
        assert told(*insert(cursor, detection(1))) == expected
        assert told(*insert(cursor, StatusReport("car", NOON, "x", None), table=STATUS_HISTORY)) == expected
        cursor.connection.commit()


def test_a_refused_row_leaves_the_caller_to_find_it(cursor: Cursor) -> None:
    cursor.execute("ALTER TABLE objects_detection_events ADD CHECK (object_value < 9)")
    with pytest.raises(RowRefused, match="violates check constraint"):
        insert(cursor, detection(1), detection(9, second=1))


def test_rows_that_are_neither_inserted_nor_there_are_tried_again(cursor: Cursor) -> None:
    """As when another session deletes them in between."""
    cursor.execute(
        """
        CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER skip BEFORE INSERT ON objects_detection_events_other
            FOR EACH ROW EXECUTE FUNCTION skip();
        """
    )
    with pytest.raises(TryAgain):
        insert(cursor, detection(1))


def test_a_row_that_another_session_commits_meanwhile_is_compared(cursor: Cursor, database: Database) -> None:
    cursor.execute("SELECT 1")  # the transaction has begun
    with closing(database.connect()) as other, other, other.cursor() as others:
        insert(others, detection(1))
    assert told(*insert(cursor, detection(2))) == [(0, False)]
