"""The same record again is a duplicate, and another value under its key is a conflict."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.processing.loading import EVENTS, HISTORY, TABLES, D, Drops, S, filler
from tests.support import VEHICLE, detections, event, report, statuses

#: How two documents reach the tables: in one file (large or small), one batch, or one after the other.
Way = Callable[[Drops, list[Any], list[Any], Callable[..., bytes], str], None]


def in_one_file(drops: Drops, first: list[Any], second: list[Any], document: Any, prefix: str) -> None:
    drops.load_until_done({f"{prefix}1.json": document(*first, *second)})


def in_one_batch(drops: Drops, first: list[Any], second: list[Any], document: Any, prefix: str) -> None:
    drops.load_until_done({f"{prefix}1.json": document(*first), f"{prefix}2.json": document(*second) + b"\n"})


def in_two_batches(drops: Drops, first: list[Any], second: list[Any], document: Any, prefix: str) -> None:
    drops.load_until_done({f"{prefix}1.json": document(*first)})
    drops.load_until_done({f"{prefix}2.json": document(*second) + b"\n"})


ways = pytest.mark.parametrize("way", [in_one_file, in_one_batch, in_two_batches])
sizes = pytest.mark.parametrize("others", [0, 150, 12_000])  # a few, many, several chunks
CASES = {
    "detection": (detections, D, event(1, ("cars", 2)), event(1, ("cars", 9)), "object_value=2 extra=null"),
    "detection's extra": (
        detections,
        D,
        event(1, ("cars", 2), lane=1),
        event(1, ("cars", 2), lane=2),
        'object_value=2 extra={"lane": 1}',
    ),
    "extra that is new": (
        detections,
        D,
        event(1, ("cars", 2)),
        event(1, ("cars", 2), lane=2),
        "object_value=2 extra=null",
    ),
    "status": (statuses, S, report(1), report(1, "accident"), "status=driving extra=null"),
    "status's extra": (statuses, S, report(1, km=5), report(1), 'status=driving extra={"km": 5}'),
}
conflicts = pytest.mark.parametrize(
    ("document", "prefix", "first", "second", "stored"), CASES.values(), ids=CASES.keys()
)


def everything(drops: Drops) -> list[Any]:
    """The tables' content, as text."""
    return [drops.rows(f"SELECT t::text FROM {table} t ORDER BY 1") for table in TABLES[:3]]


@pytest.mark.usefixtures("small_chunks")
@ways
@sizes
@pytest.mark.parametrize("kind", ["detection", "status's extra"])
def test_the_same_record_again_is_a_duplicate_row(drops: Drops, way: Way, others: int, kind: str) -> None:
    document, prefix, record, *_ = CASES[kind]
    way(drops, [record, *filler(document, others)], [record], document, prefix)
    assert drops.rows(
        "SELECT sum(rows_read), sum(rows_inserted), sum(rows_duplicate) FROM ingested_files"
    ) == [(others + 2, others + 1, 1)]
    assert drops.count(EVENTS) + drops.count(HISTORY) == others + 1


def check_conflict(
    drops: Drops, document: Callable[..., bytes], second: Any, stored: str, inserted: int
) -> None:
    ((reason, detail, original),) = drops.rows("SELECT reason, detail, original FROM rejected_records")
    assert (reason, original) == ("conflict", second)
    assert detail == f"Expected the value stored under this key ({stored}), got another"
    assert drops.values("SELECT sum(rows_inserted) FROM ingested_files") == [inserted]
    table, value = (HISTORY, "status") if document is statuses else (EVENTS, "object_value")
    shown = f"concat('{value}=', {value}, ' extra=', coalesce(extra::text, 'null'))"
    assert drops.values(f"SELECT {shown} FROM {table} WHERE vehicle_id = '{VEHICLE}'") == [stored]


@ways
@pytest.mark.parametrize("others", [0, 150])
@conflicts
def test_another_value_under_a_key_is_rejected_and_the_first_stays(
    drops: Drops,
    way: Way,
    others: int,
    document: Callable[..., bytes],
    prefix: str,
    first: Any,
    second: Any,
    stored: str,
) -> None:
    way(drops, [first, *filler(document, others)], [second], document, prefix)
    check_conflict(drops, document, second, stored, others + 1)


@pytest.mark.usefixtures("small_chunks")
@conflicts
def test_another_value_under_a_key_is_rejected_across_chunks(
    drops: Drops, document: Callable[..., bytes], prefix: str, first: Any, second: Any, stored: str
) -> None:
    in_one_file(drops, [first, *filler(document, 12_000)], [second], document, prefix)
    check_conflict(drops, document, second, stored, 12_001)


@conflicts
def test_the_original_of_a_conflict_can_be_loaded_once_the_first_is_gone(
    drops: Drops, document: Callable[..., bytes], prefix: str, first: Any, second: Any, stored: str
) -> None:
    drops.load_named({f"{prefix}1.json": document(first), f"{prefix}2.json": document(second)})
    (original,) = drops.values("SELECT original FROM rejected_records")
    drops.rows(f"DELETE FROM {EVENTS}; DELETE FROM {HISTORY}")
    outcome = drops.load_one(
        f"{prefix}3.json", document(original, report(9) if document is statuses else event(9))
    )
    assert (outcome.state, outcome.counts.rejected) == ("loaded", 0)


def test_a_conflict_names_the_record(drops: Drops) -> None:
    drops.load(objects_detection_1=detections(event(1, ("cars", 1))))
    drops.load(objects_detection_2=detections(event(0), event(1, ("signs", 1), ("cars", 2), ("trucks", 3))))
    assert drops.rows("SELECT position, path, original FROM rejected_records") == [
        (3, "$.objects_detection_events[1].detections[1]", event(1, ("cars", 2)))
    ]


def test_a_conflict_behind_a_bad_record_of_its_event_names_the_record(drops: Drops) -> None:
    drops.load(objects_detection_1=detections(event(1, ("cars", 1), ("signs", 1))))
    bad: Any = "many"
    drops.load(
        objects_detection_2=detections(
            event(1, ("x", bad), ("cars", 2), ("y", bad), ("signs", 1), ("cars", 3))
        )
    )
    where = "$.objects_detection_events[0].detections"
    assert drops.rows("SELECT position, path, reason, original FROM rejected_records ORDER BY 1") == [
        (0, f"{where}[0].object_value", "invalid", event(1, ("x", bad))),
        (1, f"{where}[1]", "conflict", event(1, ("cars", 2))),
        (2, f"{where}[2].object_value", "invalid", event(1, ("y", bad))),
        (4, f"{where}[4]", "conflict", event(1, ("cars", 3))),
    ]


@pytest.mark.parametrize("beside", [{}, {"x": {"y": 2**70}}, {"status": None}])
def test_the_same_number_in_two_files_is_no_conflict_whatever_stands_beside_it(
    drops: Drops, beside: dict[str, Any]
) -> None:
    def content(*others: dict[str, Any]) -> bytes:
        return statuses(report(km=0), *others).replace(b":0}", b":0.10000000000000001}")

    assert [outcome.state for outcome in drops.load(vehicles_status_1=content())] == ["loaded"]
    repeated = content(report(1, **beside)).replace(b"]}", b',{"a":1,"a":2}]}')
    (outcome,) = drops.load(vehicles_status_2=repeated)
    assert outcome.counts.duplicate == 1
