"""Rows into the tables by COPY and around what is there, in the sender thread or not."""

import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

import db.chunk
import db.insert
from db.chunk import Chunk
from db.connection import Database
from db.ledger import Entry
from db.partitions import Partitions
from db.sink import PostgresSink
from db.tables import TABLES
from db.writer import Met, Writer
from processing.errors import DatabaseUnavailable, Misconfigured, Refused
from processing.records import Parsed
from processing.vehicle_status import KIND
from tests.db.loading import count, counts, delivery, load, parsed_document, sink_to
from tests.support import detections, event, query, report, statuses


@pytest.fixture
def sink(database: Database) -> Iterator[PostgresSink]:
    with sink_to(database) as sink:
        yield sink


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with closing(database.connect()) as connection:
        yield connection


@pytest.fixture
def writer(connection: Connection, database: Database) -> Iterator[Writer]:
    partitions = Partitions(database)
    with ThreadPoolExecutor(1) as sender:
        writer = Writer(connection, partitions, sender, Met())
        yield writer
        writer.abandon()
    partitions.close()


def reports(count: int, **more: Any) -> list[dict[str, Any]]:
    return [report(i % 3600, vehicle=f"car-{i // 3600}", **more) for i in range(count)]


def constrain(database: Database, table: str, check: str) -> None:
    query(database.url, f"ALTER TABLE mobileye_data.{table} ADD CONSTRAINT mine CHECK ({check})")


#: Rows in a file, and the way they go.
SIZES = {
    5: "a few",
    150: "many",
    10_000: "a chunk by the thread",
    10_005: "a chunk by the thread, and a rest",
}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("size", SIZES, ids=SIZES.values())
def test_rows_arrive_by_every_way(database: Database, sink: PostgresSink, size: int) -> None:
    (loaded,) = load(sink, statuses(*reports(size, km=1)))
    assert (loaded.read, loaded.inserted) == (size, size)
    found = query(
        database.url,
        """
        SELECT count(*), count(DISTINCT (vehicle_id, report_time)), min(extra::text), count(DISTINCT file_id)
        FROM mobileye_data.vehicle_status_history
        """,
    )
    assert found == [(size, size, '{"km": 1}', 1)]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("size", SIZES, ids=SIZES.values())
def test_rows_that_the_database_refuses_are_found_and_the_others_inserted(
    database: Database, sink: PostgresSink, size: int
) -> None:
    constrain(database, "vehicle_status_history", "status <> 'driving'")
    found = reports(size, status="parking")
    places = [0, size // 2, size - 1]
    for place in places:
        found[place]["status"] = "driving"
    (loaded,) = load(sink, statuses(*found))
    assert (loaded.read, loaded.inserted, loaded.duplicate, loaded.rejected) == (size, size - 3, 0, 3)
    assert count(database, "vehicle_status_history") == size - 3
    kept = query(
        database.url, "SELECT position, path, reason, original FROM mobileye_data.rejected_records ORDER BY 1"
    )
    assert kept == [(place, f"$.vehicle_status[{place}]", "refused", found[place]) for place in places]
    ((detail,),) = query(database.url, "SELECT DISTINCT detail FROM mobileye_data.rejected_records")
    assert detail.endswith('violates check constraint "mine"')


def test_a_refused_row_never_becomes_the_latest_status(database: Database, sink: PostgresSink) -> None:
    constrain(database, "vehicle_status_history", "status <> 'driving'")
    load(sink, statuses(report(1, "parking"), report(2, "driving")))
    assert query(database.url, "SELECT status FROM mobileye_data.vehicle_status") == [("parking",)]


def test_a_conflicting_row_never_becomes_the_latest_status(database: Database, sink: PostgresSink) -> None:
    load(sink, statuses(report(1, "parking")))
    query(database.url, "DELETE FROM mobileye_data.vehicle_status")
    load(sink, statuses(report(1, "driving")))
    assert count(database, "vehicle_status") == 0


#: What the parser takes for an instant, in all its lengths.
TIMES = [
    f"2022-06-05{middle}21:02:{34 + len(fraction)}{fraction}{offset}"
    for middle in "Tt "
    for fraction in (
        "",
        ".5",
        ".546",
        ".123456",
        ".1234564",
        ".1234565",
        ".1234567",
        ".123456789",
        ".9999999",
    )
    for offset in ("Z", "z", "+00:00", "-00:00", "+05:30", "-07:00", "+15:59", "+23:59", "-23:59")
]


@pytest.mark.parametrize("way", ["COPY", "beside what is there"])
def test_a_time_is_the_same_instant_by_every_way(database: Database, sink: PostgresSink, way: str) -> None:
    found = [{**report(vehicle=time), "report_time": time} for time in TIMES]
    _, elements = parsed_document(statuses(*found))
    expected = {parsed.records[0].vehicle_id: parsed.records[0].report_time for parsed in elements}
    assert len(expected) == len(TIMES)
    load(sink, statuses(*(found if way == "COPY" else [*found, found[0]])))
    stored = query(database.url, "SELECT vehicle_id, report_time FROM mobileye_data.vehicle_status_history")
    assert dict(stored) == expected


def test_refused_duplicate_conflicting_and_new_rows_of_one_chunk_are_kept_apart(
    database: Database, sink: PostgresSink
) -> None:
    constrain(database, "objects_detection_events", "object_value < 100")
    load(sink, detections(event(0, ("cars", 1), ("signs", 1))))
    (loaded,) = load(
        sink,
        detections(
            event(0, ("trucks", 100), ("cars", 1), ("signs", 2), ("obstacles", 4)),
            event(1, ("cars", 5), ("cars", 6), ("cars", 5), ("signs", 200)),
        ),
    )
    assert (loaded.read, loaded.inserted, loaded.duplicate, loaded.rejected) == (8, 2, 2, 4)
    kept = query(database.url, "SELECT position, reason FROM mobileye_data.rejected_records ORDER BY 1")
    assert kept == [(0, "refused"), (2, "conflict"), (5, "conflict"), (7, "refused")]


def test_a_number_that_jsonb_cannot_hold_costs_its_record_alone(
    database: Database, sink: PostgresSink
) -> None:
    kind, elements = parsed_document(statuses(report(1), report(2, km=0), report(3)))
    huge = Parsed(1, 1, elements[1].source, [], [], 4)
    huge.records.append(
        type(elements[1].records[0])("car", elements[1].records[0].report_time, "x", '{"km":1E+200000}')
    )
    with sink.transaction() as transaction:
        transaction.loaded([b"x"])
        transaction.begin_file(delivery(b"x"), kind)
        for parsed in (elements[0], huge, elements[2]):
            transaction.write(parsed)
        transaction.commit()
    assert query(database.url, "SELECT position, reason, original FROM mobileye_data.rejected_records") == [
        (1, "refused", report(2, km=0))
    ]
    assert count(database, "vehicle_status_history") == 2


@pytest.mark.parametrize("table", ["ingested_files", "rejected_records"])
def test_a_refusal_that_is_no_fault_of_a_row_is_kept_apart(
    database: Database, sink: PostgresSink, table: str
) -> None:
    constrain(database, table, "file_id < 0")
    with pytest.raises(Refused, match=r'refuses .*violates check constraint "mine"') as raised:
        load(sink, statuses(report(), {}))
    assert type(raised.value) is Refused
    assert set(counts(database).values()) == {0}


def test_both_kinds_may_share_a_transaction(database: Database, sink: PostgresSink) -> None:
    load(sink, statuses(report()), detections(event()), statuses(report(1)), detections(event(1)))
    assert (count(database, "vehicle_status_history"), count(database, "objects_detection_events")) == (2, 4)


@pytest.mark.usefixtures("connection")
def test_what_fails_in_the_thread_is_reported_when_the_next_chunk_is_full(
    database: Database, sink: PostgresSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.chunk, "CHUNK_ROWS", 2)
    query(database.url, "DROP TABLE mobileye_data.rejected_records CASCADE")
    kind, elements = parsed_document(statuses(*[{}] * 4))
    with pytest.raises(Misconfigured, match="does not exist"), sink.transaction() as transaction:
        transaction.loaded([b"x"])
        transaction.begin_file(delivery(b"x"), kind)
        for parsed in elements:
            transaction.write(parsed)
        pytest.fail("the second chunk was taken")


def test_elements_without_records_are_not_kept(writer: Writer) -> None:
    entry = Entry(1, delivery(b"x"), "vehicles_status")
    writer.add(entry, KIND, Parsed(0, 0, {}, [], [], 0))
    assert [chunk._elements for chunk in writer._chunks.values() if chunk._elements] == []


@pytest.mark.parametrize("status", ["driving", 5], ids=["extra", "rejected"])
def test_memory_does_not_grow_with_the_size_of_records(
    writer: Writer, connection: Connection, monkeypatch: pytest.MonkeyPatch, status: Any
) -> None:
    monkeypatch.setattr(db.chunk, "CHUNK_BYTES", 500_000)
    entry = Entry(1, delivery(b"x"), "vehicles_status")
    tracemalloc.start()
    for parsed in KIND.parse(report(i, status, note=f"{i:06}" * 50_000) for i in range(60)):
        writer.add(entry, KIND, parsed)
    writer.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12_000_000  # 18 MB were written


def test_memory_does_not_grow_with_the_length_of_texts(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.chunk, "CHUNK_BYTES", 500_000)
    entry = Entry(1, delivery(b"x"), "vehicles_status")
    tracemalloc.start()
    for parsed in KIND.parse(report(i, "🚗" * 255, f"{i:05}" + "🚗" * 250) for i in range(3000)):
        writer.add(entry, KIND, parsed)
    writer.wait()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6_000_000  # 6 MB were written, with three copies of each


def test_places_of_records_leave_room_for_the_rejected_between_them() -> None:
    bad: Any = None
    kind, (first, second) = parsed_document(
        detections(event(0, ("a", bad), ("b", 1), ("c", bad), ("d", 2)), event(1, ("e", bad), ("f", 3)))
    )
    chunk = Chunk(kind, TABLES[kind.name])
    for parsed in (first, second):
        chunk.add(Entry(1, delivery(b"x"), kind.name), parsed)
    found = [reject for _, reject in chunk.rejects(dict.fromkeys(range(3), ("conflict", "")))]
    assert [(reject.position, reject.original["detections"][0]["object_type"]) for reject in found] == [
        (1, "b"),
        (3, "d"),
        (5, "f"),
    ]


def test_abandoning_stops_a_copy_that_waits(
    writer: Writer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it this test would wait for lock_timeout, or for ever."""
    monkeypatch.setattr(db.chunk, "CHUNK_ROWS", 1)
    with closing(database.connect()) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE mobileye_data.vehicle_status_history IN EXCLUSIVE MODE")
        for parsed in KIND.parse([report()]):
            writer.add(Entry(1, delivery(b"x"), KIND.name), KIND, parsed)
        writer.abandon()
    with pytest.raises(DatabaseUnavailable):
        writer.wait()
