"""Rows beside what is stored already: which are new, which the same, which others."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone

import pytest
from psycopg2.extensions import cursor as Cursor

from db import stage
from db.connection import Database, RowRefused, translated
from db.insert import insert_rows
from db.ledger import Entry
from db.rows import Packed
from db.stage import Existing, Placed
from db.tables import DETECTIONS, TABLE_OF
from processing.records import Detection, Parsed, Record, StatusReport
from tests.db.loading import delivery

NOON = datetime(2022, 6, 5, 12, tzinfo=UTC)
ENTRY = Entry(7, delivery(b"x"), "a kind")
PARSED = Parsed(0, 0, {}, [], [])


@pytest.fixture
def cursor(database: Database) -> Iterator[Cursor]:
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        yield cursor


def detection(value: int, extra: str | None = None, second: int = 0, kind: str = "cars") -> Detection:
    return Detection("car", NOON + timedelta(seconds=second), kind, value, extra)


def status(status: str, extra: str | None = None) -> StatusReport:
    return StatusReport("car", NOON, status, extra)


def placed(*records: Record) -> list[Placed]:
    packed = Packed()
    TABLE_OF[type(records[0])].pack(packed, records, ENTRY.file_id)
    return [Placed(row, record, ENTRY, PARSED, 0) for row, record in zip(packed.rows, records, strict=True)]


def store(cursor: Cursor, *records: Record) -> None:
    table = TABLE_OF[type(records[0])]
    insert_rows(cursor, table, [table.row(record, 1) for record in records])


def find(cursor: Cursor, *records: Record) -> list[Existing]:
    with translated():
        found = stage.find_existing(cursor, TABLE_OF[type(records[0])], placed(*records))
    return sorted(found, key=lambda existing: existing.index)


def told(*found: Existing) -> list[tuple[int, bool]]:
    return [(existing.index, existing.is_same) for existing in found]


def test_new_rows_are_not_told_of(cursor: Cursor) -> None:
    store(cursor, detection(1))
    assert find(cursor, detection(2, second=1), detection(3, kind="signs")) == []


def test_the_first_of_each_key_comes_before_the_others(cursor: Cursor) -> None:
    rows = placed(detection(1, second=5), detection(2), detection(3, second=5), detection(4), detection(5))
    firsts, others = stage.first_of_each_key(DETECTIONS, rows)
    assert values(firsts) == [2, 1]
    assert values(others) == [3, 4, 5]


def values(rows: Sequence[Placed]) -> list[int]:
    return [row.record.object_value for row in rows if isinstance(row.record, Detection)]


def test_rows_are_told_apart_by_their_value(cursor: Cursor) -> None:
    store(cursor, detection(1))
    assert told(*find(cursor, detection(2), detection(1), detection(5, second=9))) == [(0, False), (1, True)]


def test_the_same_instant_is_the_same_key_whatever_its_offset(cursor: Cursor) -> None:
    store(cursor, detection(1))
    there = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert told(*find(cursor, Detection("car", there, "cars", 1, None))) == [(0, True)]


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
    store(cursor, detection(1, first))
    assert told(*find(cursor, detection(1, second))) == [(0, is_same)]


def test_a_detail_tells_what_is_stored(cursor: Cursor) -> None:
    store(cursor, status("parking", '{"a": "ü"}'))
    (found,) = find(cursor, status("driving"))
    assert found.detail == (
        'Expected the value stored under this key (status=parking extra={"a": "ü"}), got another'
    )


def test_both_tables_may_be_used_in_one_transaction_and_again_in_the_next(cursor: Cursor) -> None:
    store(cursor, detection(1))
    store(cursor, status("x"))
    for _ in range(2):
        assert told(*find(cursor, detection(2, second=1), detection(1))) == [(1, True)]
        assert told(*find(cursor, status("x"))) == [(0, True)]
        cursor.connection.commit()


def test_a_refused_row_leaves_the_caller_to_find_it(cursor: Cursor) -> None:
    with pytest.raises(RowRefused, match="numeric"):
        find(cursor, detection(1), detection(9, '{"a": 1E+200000}', second=1))


def test_rows_of_several_days_are_found(cursor: Cursor) -> None:
    days = [detection(day, second=86_400 * day) for day in range(-3, 4)]
    cursor.execute("SELECT mobileye_data.add_partition('objects_detection_events', '2022-06-06')")
    store(cursor, *days)
    assert told(*find(cursor, *days)) == [(index, True) for index in range(7)]


def test_a_row_that_another_session_has_committed_meanwhile_is_found(
    cursor: Cursor, database: Database
) -> None:
    cursor.execute("SELECT 1")  # the transaction has begun
    with closing(database.connect()) as other, other, other.cursor() as others:
        store(others, detection(1))
    assert told(*find(cursor, detection(2))) == [(0, False)]
