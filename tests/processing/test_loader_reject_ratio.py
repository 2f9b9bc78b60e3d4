"""A file with a larger share of rejects than MAX_REJECT_RATIO fails and leaves no trace."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db.connection import Database
from tests.processing.loading import HISTORY, Drops, counts, many_reports, states
from tests.support import report, statuses

QUARTER = [report(1), report(2), report(3), {"vehicle_id": "x"}]


@pytest.fixture
def strict(tmp_path: Path, shared_database: Database) -> Iterator[Drops]:
    """One that takes no more than a quarter of rejects."""
    drops = Drops(tmp_path, shared_database, max_reject_ratio=0.25)
    drops.clear()
    yield drops
    drops.sink.close()


def failures(drops: Drops) -> list[tuple[Any, ...]]:
    return drops.rows("SELECT name, kind, error FROM ingested_files WHERE state = 'failed' ORDER BY file_id")


def too_many(figures: str) -> str:
    return f"expected a share of at most 0.25 of rejected records (MAX_REJECT_RATIO), got {figures}"


def test_a_file_with_just_as_many_rejects_is_loaded(strict: Drops) -> None:
    outcome = strict.load_one("vehicles_status_1.json", statuses(*QUARTER))
    assert (outcome.state, counts(outcome)) == ("loaded", (4, 3, 0, 1))


@pytest.mark.parametrize("copies", [1, 10], ids=["small", "large"])
def test_a_file_with_more_rejects_fails_and_leaves_no_trace(strict: Drops, tiny: None, copies: int) -> None:
    content = statuses(*many_reports(2 * copies), *[{}] * copies)
    outcome = strict.load_one("vehicles_status_1.json", content)
    reason = too_many(f"{copies} of {3 * copies}")
    assert (outcome.state, outcome.reason, counts(outcome)) == ("failed", reason, (0, 0, 0, 0))
    assert failures(strict) == [("vehicles_status_1.json", "vehicles_status", reason)]
    assert [strict.count(table) for table in (HISTORY, "vehicle_status", "rejected_records")] == [0, 0, 0]
    assert (strict.failed / "vehicles_status_1.json").read_bytes() == content


@pytest.mark.parametrize("copies", [1, 10], ids=["small", "large"])
def test_rejects_found_only_on_writing_count_too(strict: Drops, tiny: None, copies: int) -> None:
    strict.load(vehicles_status_1=statuses(*many_reports(copies)))
    outcome = strict.load_one("vehicles_status_2.json", statuses(*many_reports(2 * copies, status="x")))
    assert (outcome.state, outcome.reason) == ("failed", too_many(f"{copies} of {2 * copies}"))
    assert strict.count(HISTORY) == copies
    assert strict.count("rejected_records") == 0


def test_an_empty_file_has_not_too_many_rejects(strict: Drops) -> None:
    assert strict.load_one("vehicles_status_1.json", statuses()).state == "loaded"


def test_a_file_with_too_many_rejects_does_not_touch_those_that_share_its_transaction(strict: Drops) -> None:
    files = {f"vehicles_status_{i}.json": statuses(report(i, vehicle=f"v{i}")) for i in range(5)}
    bad = {name: statuses(report(9, vehicle=name), {}) for name in ("vehicles_status_a.json", "b.json")}
    assert sorted(states(strict.load_until_done({**files, **bad}))) == ["failed"] * 2 + ["loaded"] * 5
    assert strict.values(f"SELECT vehicle_id FROM {HISTORY} ORDER BY 1") == [f"v{i}" for i in range(5)]
    assert strict.count("rejected_records") == 0
    assert [name for name, _, _ in failures(strict)] == ["vehicles_status_a.json", "b.json"]


def test_conflicts_with_a_file_that_has_to_leave_the_transaction_are_none(strict: Drops) -> None:
    """One after the other, the first fails: the second is in conflict with nothing."""
    first, second = statuses(report(1), {}), statuses(report(1, "parking"))
    outcomes = strict.load_until_done({"vehicles_status_1.json": first, "vehicles_status_2.json": second})
    assert sorted(outcome.name for outcome in outcomes if outcome.state == "failed") == [
        "vehicles_status_1.json"
    ]
    assert strict.values(f"SELECT status FROM {HISTORY}") == ["parking"]


def test_a_file_with_too_many_rejects_is_loaded_once_it_has_fewer_conflicts(strict: Drops) -> None:
    strict.load(vehicles_status_1=statuses(report(1)))
    content = statuses(report(1, "parking"))
    assert strict.load_one("vehicles_status_2.json", content).state == "failed"
    strict.rows(f"DELETE FROM {HISTORY}")
    assert strict.load_one("vehicles_status_2.json", content).state == "loaded"
    assert failures(strict) == []
