"""What happens between opening and COMMIT makes a file wait or be tried again: writers, lost races, locks."""

import gzip
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from io import BufferedWriter
from pathlib import Path
from typing import Any

import psycopg2
import pytest

import db.chunk
import db.conflicts
import db.session
import db.writer
import processing.document
import processing.fast_path
import processing.loader
from db import ledger
from db.connection import Database
from db.ledger import Entry
from db.sink import PostgresSink, PostgresTransaction
from processing.batch import FileTask
from processing.errors import TryAgain
from processing.loader import Loader
from sources.folder import FolderSource
from sources.policy import OnLoaded
from tests.processing.loading import GIGABYTE, HISTORY, Drops, S, counts, states
from tests.support import drop, report, statuses


@contextmanager
def opened_for_writing_while_it_is_read(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> Iterator[list[BufferedWriter]]:
    """A program opens a file again just after it was opened for reading."""
    writers: list[BufferedWriter] = []
    loaded = PostgresTransaction.loaded

    def open_and_ask(transaction: PostgresTransaction, digests: Sequence[bytes]) -> set[bytes]:
        if not writers:
            writers.append(open(path, "ab"))  # noqa: SIM115
        return loaded(transaction, digests)

    monkeypatch.setattr(PostgresTransaction, "loaded", open_and_ask)
    try:
        yield writers
    finally:
        for writer in writers:
            writer.close()


@pytest.mark.parametrize("shared", [1, 10_000_000], ids=["large", "small"])
@pytest.mark.parametrize("content", [b"hello", statuses(report())], ids=["bad", "good"])
def test_a_file_that_is_opened_for_writing_while_it_is_read_waits(
    drops: Drops, monkeypatch: pytest.MonkeyPatch, content: bytes, shared: int
) -> None:
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", shared)
    name = "vehicles_status_1.json"
    with opened_for_writing_while_it_is_read(monkeypatch, drops.incoming / name):
        assert states(drops.load_named({name: content})) == ["waiting"]
    assert drops.count("ingested_files") == drops.count(HISTORY) == 0
    assert states(drops.processor.load([FileTask(name)])) == ["failed" if content == b"hello" else "loaded"]


@contextmanager
def races_lost(monkeypatch: pytest.MonkeyPatch, times: int, then: Callable[[], None]) -> Iterator[None]:
    """As if another process had entered the same file, so often."""
    add, left = ledger.add, iter(range(times))

    def lose(cursor: Any, entries: Sequence[Entry]) -> None:
        if next(left, None) is None:
            return add(cursor, entries)
        then()
        raise TryAgain("lost")

    monkeypatch.setattr(ledger, "add", lose)
    yield
    monkeypatch.setattr(ledger, "add", add)


@pytest.mark.parametrize("shared", [1, 10_000_000], ids=["large", "small"])
def test_a_lost_race_is_run_again_a_few_times(
    drops: Drops, monkeypatch: pytest.MonkeyPatch, shared: int
) -> None:
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", shared)
    content = statuses(report(1), report(1), report(1, "parking"))
    with races_lost(monkeypatch, 5, lambda: None):
        (outcome,) = drops.load_named({"vehicles_status_1.json": content})
    assert (outcome.state, outcome.reason) == ("contended", "lost")
    with races_lost(monkeypatch, 4, lambda: None):
        (outcome,) = drops.processor.load([FileTask("vehicles_status_1.json")])
    assert (outcome.state, counts(outcome)) == ("loaded", (3, 1, 1, 1))
    assert drops.count(HISTORY) == drops.count("rejected_records") == 1


def test_files_that_lose_every_race_are_tried_alone(drops: Drops, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{S}{number}.json": statuses(report(number)) for number in range(3)}
    with races_lost(monkeypatch, 5, lambda: None):
        assert states(drops.load_named(files)) == ["retry_alone"] * 3
    assert states(drops.processor.load([FileTask(name) for name in files])) == ["loaded"] * 3


@pytest.fixture
def hasty(drops: Drops, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks that are waited for are given up soon."""
    monkeypatch.setattr(drops.sink, "_hasty", "SET LOCAL lock_timeout = '200ms';")
    monkeypatch.setitem(db.session._SETTINGS, "lock_timeout", "'400ms'")


@contextmanager
def locked(drops: Drops, table: str) -> Iterator[None]:
    with closing(psycopg2.connect(drops.database.url)) as other:
        other.cursor().execute(f"LOCK TABLE mobileye_data.{table} IN EXCLUSIVE MODE")
        yield


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("shared", [1, 10_000_000], ids=["large", "small"])
@pytest.mark.parametrize("table", ["ingested_files", "vehicle_status", HISTORY])
def test_a_file_that_meets_a_lock_is_tried_again_later(
    drops: Drops, monkeypatch: pytest.MonkeyPatch, table: str, shared: int
) -> None:
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", shared)
    with locked(drops, table):
        (outcome,) = drops.load(vehicles_status_1=statuses(report()))
    assert outcome.state == "contended" and "lock timeout" in outcome.reason
    assert states(drops.processor.load([FileTask("vehicles_status_1.json")])) == ["loaded"]


@pytest.mark.usefixtures("hasty")
def test_a_bad_file_that_can_not_be_entered_for_a_lock_is_tried_again_later(drops: Drops) -> None:
    with locked(drops, "ingested_files"):
        assert states(drops.load(vehicles_status_1=b"hello")) == ["contended"]
    assert states(drops.processor.load([FileTask("vehicles_status_1.json")])) == ["failed"]


def test_a_file_that_has_no_rows_for_longer_than_a_session_may_be_idle_is_loaded(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", 1)
    monkeypatch.setitem(db.session._SETTINGS, "idle_in_transaction_session_timeout", "'500ms'")
    text = statuses(report(1), report(2)).replace(b"},{", b"}," + b" " * 2_000_000 + b"{")
    drop(tmp_path, f"{S}1.json", gzip.compress(text))
    folders = str(tmp_path), str(tmp_path / "failed"), ""
    with closing(PostgresSink(database, idle_seconds=0.1)) as sink:

        def beat() -> None:
            time.sleep(0.05)  # a slow disk
            sink.keep_alive()

        loader = Loader(FolderSource(*folders, OnLoaded.DELETE, beat=beat), sink, GIGABYTE)
        (outcome,) = loader.load([FileTask(f"{S}1.json")])
    assert (outcome.state, outcome.counts.inserted) == ("loaded", 2)


def test_a_file_that_could_not_be_read_at_the_first_try_may_be_loaded_at_the_next(
    drops: Drops, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["vehicles_status_1.json", "vehicles_status_2.json"]
    files = {name: statuses(report(i)) for i, name in enumerate(names)}
    with (
        opened_for_writing_while_it_is_read(monkeypatch, drops.incoming / names[0]) as writers,
        races_lost(monkeypatch, 1, lambda: writers[0].close()),
    ):
        assert states(drops.load_named(files)) == ["loaded", "loaded"]
    assert drops.count(HISTORY) == 2
    assert drops.left() == []
