"""What is published of the work: only changes, not too often, and its end at once."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from processing.batch import FileTask
from service.events import Event, FileProgress, WorkChanged
from service.progress import PROGRESS_SECONDS, ProgressReport


class Work:
    """A backlog and a pool, as far as the report looks at them."""

    size = 2

    def __init__(self) -> None:
        self.ready = self.waiting = self.in_flight = 0
        self.position = (0, 0)

    def sizes(self) -> tuple[int, int, int]:
        return self.ready, self.waiting, self.in_flight

    def progress(self, _: object) -> tuple[int, int]:
        return self.position


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("service.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def report_to(published: list[Event]) -> ProgressReport:
    sizes = {"large.json": 5_000_000, "small.json": 1000}
    return ProgressReport(published.append, sizes.get)


def flight(*names: str) -> list[Any]:
    return [(Future(), [FileTask(name) for name in names])]


def test_only_changes_are_published_and_not_too_often(clock: list[float]) -> None:
    published: list[Event] = []
    report, work = report_to(published), Work()
    work.ready = 900
    for _ in range(10):
        work.ready -= 1
        report.update(work, work, [])  # type: ignore[arg-type]
    assert published == [WorkChanged(899, 0, 0, 2, 0)]
    clock[0] += PROGRESS_SECONDS
    for _ in range(2):
        report.update(work, work, [])  # type: ignore[arg-type]
        clock[0] += PROGRESS_SECONDS
    assert published[1:] == [WorkChanged(890, 0, 0, 2, 0)]


def test_the_end_of_all_work_is_published_at_once(clock: list[float]) -> None:
    published: list[Event] = []
    report, work = report_to(published), Work()
    work.in_flight = 1
    report.update(work, work, flight("small.json"))  # type: ignore[arg-type]
    work.in_flight, work.waiting = 0, 1
    report.update(work, work, [])  # type: ignore[arg-type]
    assert published == [WorkChanged(0, 1, 0, 2, 1), WorkChanged(0, 0, 1, 2, 0)]


def test_a_large_file_has_its_progress(clock: list[float]) -> None:
    published: list[Event] = []
    report, work = report_to(published), Work()
    work.in_flight, work.position = 3, (2_500_000, 700)
    flights = [
        *flight("large.json"),
        *flight("small.json"),
        *flight("a.json", "b.json"),
        *flight("gone.json"),
    ]
    report.update(work, work, flights)  # type: ignore[arg-type]
    large = (FileProgress("large.json", 5_000_000, 2_500_000, 700),)
    assert published == [WorkChanged(0, 3, 0, 2, 4, large)]
