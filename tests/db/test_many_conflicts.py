"""Many conflicts in one file: as cheap as duplicates, in bounded memory."""

import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from db import rejects
from db.connection import Database
from db.ledger import Entry
from processing.records import Parsed, Rejected
from processing.sink import Counts
from tests.db.loading import delivery
from tests.processing.loading import Drops
from tests.support import detections, event, query, report, statuses

D, S = "objects_detection_1", "vehicles_status_1"


@pytest.fixture
def drops(tmp_path: Path, database: Database) -> Iterator[Drops]:
    drops = Drops(tmp_path, database)
    yield drops
    drops.sink.close()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Parsed]:
    """Each Parsed whose elements are decoded again, once for each time."""
    found: list[Parsed] = []
    elements = Parsed.elements

    def counted(parsed: Parsed) -> list[Any]:
        found.append(parsed)
        return elements(parsed)

    monkeypatch.setattr(Parsed, "elements", counted)
    return found


def of_many_events(value: int) -> bytes:
    kinds = [(f"kind-{i}", value) for i in range(10)]
    return detections(*[event(i % 3600, *kinds, vehicle=f"car-{i // 3600}") for i in range(2000)])


def of_one_event(value: int) -> bytes:
    return detections(event(0, *[(f"kind-{i}", value) for i in range(20_000)]))


def of_one_event_with_flaws(value: int) -> bytes:
    flawed: Any = "many"
    kinds = [(f"kind-{i}", flawed if i % 2 else value) for i in range(4_000)]
    return detections(event(0, *kinds))


@pytest.mark.parametrize(
    ("document", "read", "times"),
    [(of_many_events, 20_000, 8), (of_one_event, 20_000, 1), (of_one_event_with_flaws, 4_000, 1)],
)
def test_the_elements_of_conflicts_are_decoded_once(
    drops: Drops, decoded: list[Parsed], document: Any, read: int, times: int
) -> None:
    drops.load_until_done({f"{D}.json": document(1)})
    (outcome,) = drops.load_until_done({f"{D}.json": document(2)})
    conflict = read // 2 if document is of_one_event_with_flaws else read
    assert outcome.counts == Counts(read, 0, 0, read, conflict=conflict)
    assert len(decoded) <= times  # a block of 256 kB, or the event
    last = "WHERE reason = 'conflict' ORDER BY position DESC LIMIT 1"
    ((position, original),) = drops.rows(f"SELECT position, original FROM rejected_records {last}")
    assert position == read - (2 if read == 4_000 else 1)
    (counted,) = original["detections"]
    assert counted["object_type"] == ("kind-9" if document is of_many_events else f"kind-{position}")


@pytest.mark.parametrize("size", [199, 200, 201, 1_000_000])
def test_a_conflict_quotes_the_beginning_of_a_stored_value(drops: Drops, size: int) -> None:
    text = "ü" * (size - 9)  # beside {"a": ""}, as jsonb shows it
    drops.load_one(f"{S}.json", statuses(report(a=text)))
    drops.load_one(f"{S}.json", statuses(report()))
    (detail,) = drops.values("SELECT detail FROM rejected_records")
    shown = f'{{"a": "{text}"}}'
    shown = shown if size <= 200 else shown[:200] + "…"
    assert detail == (f"Expected the value stored under this key (status=driving extra={shown}), got another")


def test_memory_does_not_grow_with_what_is_stored(drops: Drops) -> None:
    rows = "SELECT 'car', '2022-05-05 22:00:00.546Z'::timestamptz + i * interval '1 s', 'driving', "
    extra = "jsonb_build_object('a', repeat('x', 100000)), 1 FROM generate_series(0, 299) i"
    drops.rows(f"INSERT INTO vehicle_status_history {rows} {extra}")
    tracemalloc.start()
    outcome = drops.load_one(f"{S}.json", statuses(*[report(i, vehicle="car") for i in range(300)]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert outcome.counts == Counts(300, 0, 0, 300, conflict=300)
    assert peak < 5_000_000  # 30 MB are stored


def test_memory_does_not_grow_with_the_originals(database: Database) -> None:
    entry = Entry(7, delivery(b"x"), "vehicles_status")
    many = ((entry, Rejected(i, "$", "invalid", "x", {"a": f"{i:05}" * 4000})) for i in range(2000))
    with closing(database.connect()) as connection, connection, connection.cursor() as cursor:
        tracemalloc.start()
        rejects.add(cursor, many)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2_000_000  # 40 MB were written
    assert entry.rejected == 2000
    wrong = "length(original::text) <> 20008"
    statement = f"SELECT count(*), count(*) FILTER (WHERE {wrong}) FROM mobileye_data.rejected_records"
    assert query(database.url, statement) == [(2000, 0)]
