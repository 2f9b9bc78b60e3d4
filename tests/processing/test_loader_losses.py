"""Rows that a fault of this program would lose are missed before COMMIT."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, TypeVar

import pytest

import processing.document
import processing.fast_path
import processing.loader
from db.sink import PostgresTransaction
from processing.document import Document
from processing.fast_path import FastPath
from processing.records import Parsed
from tests.processing.loading import EVENTS, HISTORY, D, Drops, S, counts
from tests.support import detections, event, report, statuses

T = TypeVar("T")


@pytest.fixture(params=[1, 10_000_000], ids=["large", "small"])
def sized(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that hold a few records each, of files that count as large or as small."""
    monkeypatch.setattr(processing.fast_path, "WINDOW_BYTES", 1000)
    monkeypatch.setattr(processing.document, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", request.param)


def lossy(method: Callable[..., Iterator[T]], lost: int) -> Callable[..., Iterator[T]]:
    """The same without the item of that index."""

    def parsed(*arguments: Any) -> Iterator[T]:
        return (item for index, item in enumerate(method(*arguments)) if index != lost)

    return parsed


BOTH_KINDS = {
    S: statuses(*[report(i, vehicle=f"v{i}") for i in range(100)]),
    D: detections(*[event(i, ("cars", i), ("signs", i), vehicle=f"v{i}") for i in range(100)]),
}


@pytest.mark.parametrize("prefix", BOTH_KINDS)
@pytest.mark.parametrize("method", ["_blocks", "parsed"])
@pytest.mark.parametrize("lost", [0, 3])
def test_a_window_that_gets_lost_is_missed_and_the_file_read_carefully(
    drops: Drops, monkeypatch: pytest.MonkeyPatch, sized: None, prefix: str, method: str, lost: int
) -> None:
    monkeypatch.setattr(FastPath, method, lossy(getattr(FastPath, method), lost))
    outcome = drops.load_one(f"{prefix}1.json", BOTH_KINDS[prefix])
    assert outcome.state == "loaded"
    assert outcome.reason.startswith("read twice: expected to read all elements of the document, got ")
    assert outcome.reason.endswith(": a fault of this program")
    rows = 100 if prefix == S else 200
    assert drops.values("SELECT rows_read FROM ingested_files") == [rows]
    assert drops.count(HISTORY if prefix == S else EVENTS) == rows


@pytest.mark.parametrize("prefix", BOTH_KINDS)
@pytest.mark.parametrize("lost", [1, 50, 99])
def test_what_a_careful_pass_loses_too_is_not_loaded_and_the_file_is_kept(
    drops: Drops, monkeypatch: pytest.MonkeyPatch, sized: None, prefix: str, lost: int
) -> None:
    monkeypatch.setattr(FastPath, "parsed", lossy(FastPath.parsed, 0))
    monkeypatch.setattr(Document, "_elements", lossy(Document._elements, lost))
    good = {f"{S}2.json": statuses(report(vehicle="good"))}
    outcomes = drops.load_until_done({f"{prefix}1.json": BOTH_KINDS[prefix]} | good)
    monkeypatch.undo()
    bad = next(outcome for outcome in outcomes if outcome.name == f"{prefix}1.json")
    records = 99 if prefix == S else 198
    assert (bad.state, bad.reason) == (
        "failed",
        f"expected to read all elements of the document, got 99 of them with {records} records: "
        "a fault of this program",
    )
    assert (drops.failed / bad.name).read_bytes() == BOTH_KINDS[prefix]
    assert drops.values(f"SELECT vehicle_id FROM {HISTORY}") == ["good"]
    assert drops.count(EVENTS) == drops.count("rejected_records") == 0


@pytest.mark.parametrize("prefix", BOTH_KINDS)
def test_what_is_lost_on_its_way_to_the_sink_is_not_loaded(
    drops: Drops, monkeypatch: pytest.MonkeyPatch, sized: None, prefix: str
) -> None:
    write, calls = PostgresTransaction.write, count()

    def lose(transaction: PostgresTransaction, parsed: Parsed) -> None:
        if next(calls) % 3:
            write(transaction, parsed)

    monkeypatch.setattr(PostgresTransaction, "write", lose)
    outcome = drops.load_one(f"{prefix}1.json", BOTH_KINDS[prefix])
    assert outcome.state == "failed" and outcome.reason.endswith("a fault of this program")
    assert (drops.failed / outcome.name).read_bytes() == BOTH_KINDS[prefix]
    assert drops.count(HISTORY) + drops.count(EVENTS) == 0


def test_a_key_that_comes_twice_is_no_fault(drops: Drops, sized: None) -> None:
    content = BOTH_KINDS[S].replace(b'"v50"', b'"v50","vehicle_id":"v50"')
    outcome = drops.load_one(f"{S}1.json", content)
    assert (outcome.state, outcome.reason, counts(outcome)) == ("loaded", "", (100, 99, 0, 1))
