"""Rows whose keys may be stored already: new ones, duplicates and conflicts."""

import random
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone

import pytest
from psycopg2.extensions import cursor as Cursor

import db.conflicts
from db.chunk import Chunk
from db.conflicts import ConflictResolver, candidate_rows, find_existing, first_of_each_key
from db.connection import Database, RowRefused, translate_errors
from db.insert import copy_rows
from db.ledger import Entry
from db.tables import TABLES, Table
from processing.detection_events import Detection
from processing.records import Parsed, Record
from processing.vehicle_status import StatusReport
from tests.db.loading import delivery, kind_of

NOON = datetime(2022, 6, 5, 12, tzinfo=UTC)


@pytest.fixture
def cursor(database: Database) -> Iterator[Cursor]:
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        yield cursor


def detection(value: int, extra: str | None = None, second: int = 0, kind: str = "cars") -> Detection:
    return Detection("car", NOON + timedelta(seconds=second), kind, value, extra)


def status(status: str, extra: str | None = None) -> StatusReport:
    return StatusReport("car", NOON, status, extra)


def chunk_of(*records: Record) -> Chunk:
    kind = kind_of(records[0])
    chunk = Chunk(kind, TABLES[kind.name])
    chunk.add(Entry(7, delivery(b"x"), kind.name), Parsed(0, 0, {}, list(records), []))
    return chunk


def store(cursor: Cursor, *records: Record) -> None:
    chunk = chunk_of(*records)
    copy_rows(cursor, chunk.table, chunk.data, len(records))


def find(cursor: Cursor, *records: Record) -> dict[int, str | None]:
    """The stored value of each row whose key exists, None where it is the same."""
    with translate_errors():
        return find_existing(cursor, chunk_of(*records), range(len(records)))


def test_new_rows_are_not_found(cursor: Cursor) -> None:
    store(cursor, detection(1))
    assert find(cursor, detection(2, second=1), detection(3, kind="signs")) == {}


def test_the_first_of_each_key_comes_before_the_others() -> None:
    chunk = chunk_of(detection(1, second=5), detection(2), detection(3, second=5), detection(4), detection(5))
    assert first_of_each_key(chunk, [4, 3, 2, 1, 0]) == ([1, 0], [4, 3, 2])


def test_rows_with_a_stored_key_are_compared_by_value(cursor: Cursor) -> None:
    store(cursor, detection(1))
    found = find(cursor, detection(2), detection(1), detection(5, second=9))
    assert found == {0: "object_value=1 extra=null", 1: None}


def test_the_same_instant_is_the_same_key_whatever_its_offset(cursor: Cursor) -> None:
    store(cursor, detection(1))
    there = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert find(cursor, Detection("car", there, "cars", 1, None)) == {0: None}


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
    assert (find(cursor, detection(1, second))[0] is None) == is_same


def test_the_stored_value_is_shown(cursor: Cursor) -> None:
    store(cursor, status("parking", '{"a": "ü"}'))
    assert find(cursor, status("driving")) == {0: 'status=parking extra={"a": "ü"}'}


def test_both_tables_may_be_used_in_one_transaction_and_again_in_the_next(cursor: Cursor) -> None:
    store(cursor, detection(1))
    store(cursor, status("x"))
    for _ in range(2):
        assert find(cursor, detection(2, second=1), detection(1)) == {1: None}
        assert find(cursor, status("x")) == {0: None}
        cursor.connection.commit()


def test_a_value_that_no_column_can_hold_raises_row_refused(cursor: Cursor) -> None:
    with pytest.raises(RowRefused, match="numeric"):
        find(cursor, detection(1), detection(9, '{"a": 1E+200000}', second=1))


def test_rows_of_several_days_are_found(cursor: Cursor) -> None:
    days = [detection(day, second=86_400 * day) for day in range(-3, 4)]
    cursor.execute("SELECT mobileye_data.add_partition('objects_detection_events', '2022-06-06')")
    store(cursor, *days)
    assert find(cursor, *days) == dict.fromkeys(range(7))


def test_a_row_that_another_session_has_committed_meanwhile_is_found(
    cursor: Cursor, database: Database
) -> None:
    cursor.execute("SELECT 1")  # the transaction has begun
    with closing(database.connect()) as other, other, other.cursor() as others:
        store(others, detection(1))
    assert find(cursor, detection(2)) == {0: "object_value=1 extra=null"}


# Candidates ---------------------------------------------------------------------------------------


@pytest.fixture
def sought(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the first query run for any number of rows, stored or not."""
    monkeypatch.setattr(db.conflicts, "_MANY_ROWS", 0)
    monkeypatch.setattr(db.conflicts, "_SPARSE", 1000)


VEHICLES = ["car", "a", "bus", "ü", "車", "x" * 40, 'a"\\ b']
TIMES = [
    NOON,
    NOON + timedelta(microseconds=1),
    NOON + timedelta(days=1),
    datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC),
    datetime(2000, 1, 1, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, tzinfo=UTC),
    datetime(2022, 6, 5, 14, tzinfo=timezone(timedelta(hours=2))),
]


@pytest.mark.usefixtures("sought")
@pytest.mark.parametrize("seed", range(40))
def test_candidates_are_the_rows_whose_vehicle_and_time_are_stored(cursor: Cursor, seed: int) -> None:
    rng = random.Random(seed)
    keys = [(vehicle, time, kind) for vehicle in VEHICLES for time in TIMES[:-1] for kind in ("cars", "dogs")]
    stored = [Detection(*key, 1, None) for key in rng.sample(keys, rng.choice((0, 3, 40)))]
    if stored:
        store(cursor, *stored)
    asked = [
        Detection(rng.choice(VEHICLES), rng.choice(TIMES), rng.choice(("cars", "signs")), 1, None)
        for _ in range(rng.choice((1, 30)))
    ]
    chunk = chunk_of(*asked)
    there = {(row.vehicle_id, row.detection_time) for row in stored}
    expected = [i for i, row in enumerate(asked) if (row.vehicle_id, row.detection_time) in there]
    assert sorted(candidate_rows(cursor, chunk, chunk.order)) == expected
    half = chunk.order[::2]
    assert sorted(candidate_rows(cursor, chunk, half)) == sorted(set(half) & set(expected))


@pytest.mark.parametrize(("stored", "candidates"), [(0, 0), (100, 100), (101, 1000)])
def test_all_rows_are_candidates_if_many_are_stored(cursor: Cursor, stored: int, candidates: int) -> None:
    rows = [detection(1, second=second) for second in range(1000)]
    for row in rows[:stored]:
        store(cursor, row)
    chunk = chunk_of(*rows)
    assert len(candidate_rows(cursor, chunk, chunk.order)) == candidates


@pytest.mark.usefixtures("sought")
def test_status_reports_are_candidates_too(cursor: Cursor) -> None:
    store(cursor, status("parking"))
    for known in (status("driving"), status("parking")):
        chunk = chunk_of(known)
        assert list(candidate_rows(cursor, chunk, chunk.order)) == [0]


def test_each_refused_row_of_a_repeated_key_is_reported(cursor: Cursor) -> None:
    """The first row that is not refused is stored, whatever the order by bytes."""
    cursor.execute("ALTER TABLE objects_detection_events ADD CHECK (object_value < 9)")
    values = [10, 9, 8, 7, 8, 12]
    merge = ConflictResolver(cursor.connection, chunk_of(*[detection(value) for value in values]))
    merge.run()
    assert merge.duplicates == [4]
    assert {index: reason for index, (reason, _) in sorted(merge.rejects.items())} == {
        0: "refused",
        1: "refused",
        3: "conflict",
        5: "conflict",
    }
    cursor.execute("SELECT object_value FROM objects_detection_events")
    assert cursor.fetchall() == [(8,)]


@pytest.mark.parametrize("value", [1, 5])
def test_a_key_that_another_process_writes_meanwhile_is_looked_up_again(
    cursor: Cursor, database: Database, monkeypatch: pytest.MonkeyPatch, value: int
) -> None:
    """The other process writes after the look-up, and before the insert."""

    def overtaken(sent_by: Cursor, table: Table, data: bytes, count: int, name: str = "") -> None:
        if not name:
            monkeypatch.setattr(db.conflicts, "copy_rows", copy_rows)
            with closing(database.connect()) as other, other, other.cursor() as others:
                store(others, detection(value))
        copy_rows(sent_by, table, data, count, name)

    monkeypatch.setattr(db.conflicts, "copy_rows", overtaken)
    merge = ConflictResolver(cursor.connection, chunk_of(detection(1), detection(2, second=1)))
    merge.run()
    conflict = "Expected the value stored under this key (object_value=5 extra=null), got another"
    assert merge.duplicates == ([0] if value == 1 else [])
    assert merge.rejects == ({} if value == 1 else {0: ("conflict", conflict)})
