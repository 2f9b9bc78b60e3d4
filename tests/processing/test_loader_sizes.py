"""A file that is too large to share a transaction is loaded alone; one beyond MAX_FILE_BYTES fails."""

import gc
import gzip
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import processing.document
import processing.fast_path
import processing.small_file
from db.connection import Database
from processing.batch import FileTask
from tests.processing.loading import HISTORY, Drops, S, counts, many_reports, states
from tests.support import drop, report, statuses


def test_a_text_too_large_to_share_a_transaction_is_loaded_alone(drops: Drops) -> None:
    large = gzip.compress(statuses(*many_reports(30_000)))
    outcomes = drops.load_named({f"{S}1.json.gz": large, f"{S}2.json": statuses(report(1, vehicle="x"))})
    assert states(outcomes) == ["retry_alone", "loaded"]
    assert drops.left() == [f"{S}1.json.gz"]
    (alone,) = drops.processor.load([FileTask(f"{S}1.json.gz")])
    assert (alone.state, counts(alone)) == ("loaded", (30_000, 30_000, 0, 0))


def test_a_large_file_in_a_shared_batch_waits_for_its_own(drops: Drops, tiny: None) -> None:
    outcomes = drops.load(vehicles_status_1=statuses(*many_reports(50)), vehicles_status_2=statuses(report()))
    assert states(outcomes) == ["retry_alone", "loaded"]


def test_a_file_of_more_than_max_bytes_is_failed_unread(tmp_path: Path, database: Database) -> None:
    drops = Drops(tmp_path, database, max_bytes=50)
    outcome = drops.load_one("vehicles_status_1.json", statuses(report()))
    drops.sink.close()
    size = len(statuses(report()))
    assert (outcome.state, outcome.reason) == (
        "failed",
        f"expected at most 50 bytes (MAX_FILE_BYTES), got {size}",
    )
    assert drops.rows("SELECT sha256, size, error FROM ingested_files") == [(None, size, outcome.reason)]


@pytest.mark.parametrize("unusual", [{}, {"x" * 2000: 1}], ids=["fast", "read carefully"])
def test_a_text_of_more_than_max_bytes_is_failed(
    tmp_path: Path, database: Database, unusual: dict[str, Any]
) -> None:
    drops = Drops(tmp_path, database, max_bytes=2_200_000)
    large = statuses(report(**unusual), *many_reports(30_000))
    outcome = drops.load_one("vehicles_status_1.json", gzip.compress(large))
    drops.sink.close()
    assert (outcome.state, outcome.reason) == (
        "failed",
        "expected at most 2200000 bytes of text (MAX_FILE_BYTES)",
    )
    assert drops.count(HISTORY) == 0


def test_a_small_file_of_many_rejects_is_streamed_alone(
    drops: Drops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing.small_file, "_MAX_REJECTS", 2)
    wrong = statuses(report(), *[{}] * 3)
    outcomes = drops.load(vehicles_status_1=wrong, vehicles_status_2=statuses(report(1)))
    assert [outcome.state for outcome in outcomes] == ["retry_alone", "loaded"]
    (outcome,) = drops.load(vehicles_status_1=wrong)
    assert (outcome.state, outcome.counts.inserted, outcome.counts.rejected) == ("loaded", 1, 3)


@pytest.mark.parametrize("unusual", [{}, {"x" * 2000: 1}], ids=["fast", "read carefully"])
def test_what_was_read_of_a_file_is_freed_when_it_is_given_up(drops: Drops, unusual: dict[str, Any]) -> None:
    """At once, not when the collector comes: here it never does."""
    large = gzip.compress(statuses(report(**unusual), *many_reports(30_000)))
    names = [f"{S}{number}.json.gz" for number in range(4)]
    for name in names:
        drop(drops.incoming, name, large)
    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        assert set(states(drops.processor.load(list(map(FileTask, names))))) == {"retry_alone"}
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert kept < 1_000_000
