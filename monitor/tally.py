"""Counts what the events say, for a view that shows the present."""

import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from monitor.event_log import database_line
from processing.batch import Outcome
from processing.printable import printable
from service import events
from service.events import Event, FileProgress, Resource

#: The time over which a rate is measured, in seconds.
_WINDOW = 5.0

#: A backlog of fewer files comes and goes too fast for a bar.
_MANY = 20


class Wording(Struct, frozen=True):
    """The words for what was done with a file, and for a record that reached the destination."""

    done: str
    unit: str


LOADED = Wording("loaded", "row")
PUBLISHED = Wording("published", "record")


class LargeFile(Struct, frozen=True):
    """A large file that is being loaded; seconds_left is None as long as nobody knows."""

    file: str
    size: int
    read_bytes: int
    rows_per_second: float
    seconds_left: float | None


class Work(Struct, frozen=True):
    """Files of a backlog: done since it began, left, and the seconds until it is gone, if known."""

    done: int
    left: int
    seconds_left: float | None


class View(Struct, frozen=True):
    """The state that is shown at one moment; troubles tells of what does not work, by what it is."""

    folder: str = ""
    place: str = ""
    destination: str = "database"
    unit: str = LOADED.unit
    seconds: int = 0
    large: tuple[LargeFile, ...] = ()
    backlog: Work | None = None
    ready: int = 0
    waiting: int = 0
    files_per_second: float = 0.0
    rows_per_second: float = 0.0
    loaded: int = 0
    rows: int = 0
    duplicate: int = 0
    rejected: int = 0
    failed: int = 0
    observer: str = ""
    workers: int = 0
    busy: int = 0
    deaths: int = 0
    troubles: Mapping[str, str] = {}


class Rate:
    """A number a second: over the last seconds, or since the first of them if that is less."""

    def __init__(self) -> None:
        self._counted: deque[tuple[float, int]] = deque()
        self._sum = 0

    def count(self, at: float, number: int) -> None:
        if number:
            self._counted.append((at, number))
            self._sum += number

    def at(self, now: float) -> float:
        while self._counted and self._counted[0][0] < now - _WINDOW:
            self._sum -= self._counted.popleft()[1]
        return self._sum / max(1.0, now - self._counted[0][0]) if self._counted else 0.0


class Tally:
    """Takes events, with the time of each, and gives the state at any later time."""

    def __init__(self, began: float, started_in: str = "", destination: Resource = Resource.DATABASE) -> None:
        self._began = began
        self._started_in = started_in
        self._place = self._folder = self._observer = ""
        self._destination = destination
        self._loaded = self._rows = self._duplicate = self._rejected = self._failed = self._deaths = 0
        self._files_rate, self._rows_rate = Rate(), Rate()
        self._work = events.WorkChanged(0, 0, 0, 0, 0)
        self._large: dict[str, _Progress] = {}
        self._done = 0
        self._troubles: dict[str, str] = {}

    def take(self, event: Event, at: float) -> None:
        match event:
            case events.FileLoaded(outcome):
                self._loaded += 1
                self._finish(outcome, at)
            case events.FileDuplicate(outcome):
                self._duplicate += 1
                self._finish(outcome, at)
            case events.FileFailed(outcome):
                self._failed += 1
                self._finish(outcome, at)
            case events.WorkChanged():
                self._change(event, at)
            case events.WorkerDied():
                self._deaths += 1
            case events.Started():
                self._folder, self._observer = _short(event.folder, self._started_in), event.observer
                self._place = _place(event, self._started_in)
                self._work = events.WorkChanged(0, 0, 0, event.workers, 0)
                self._troubles.clear()
            case _:
                self._note_trouble(event)

    def view(self, now: float) -> View:
        files_per_second = self._files_rate.at(now)
        # Large files have bars of their own.
        left = max(0, self._work.ready + self._work.in_flight - len(self._large))
        is_shown = left and self._done + left >= _MANY
        return View(
            folder=self._folder,
            place=self._place,
            destination=NAMES[self._destination],
            unit=wording_of(self._destination).unit,
            seconds=int(now - self._began),
            large=tuple(progress.shown(now) for progress in self._large.values()),
            backlog=Work(self._done, left, _time_left(left, files_per_second)) if is_shown else None,
            ready=left,
            waiting=self._work.waiting,
            files_per_second=round(files_per_second, 1),
            rows_per_second=round(self._rows_rate.at(now), 1),
            loaded=self._loaded,
            rows=self._rows,
            duplicate=self._duplicate,
            rejected=self._rejected,
            failed=self._failed,
            observer=self._observer,
            workers=self._work.workers,
            busy=self._work.busy,
            deaths=self._deaths,
            troubles=dict(self._troubles),
        )

    def _finish(self, outcome: Outcome, at: float) -> None:
        self._done += 1
        self._rows += outcome.counts.inserted
        self._rejected += outcome.counts.rejected
        self._files_rate.count(at, 1)
        progress = self._large.pop(outcome.name, None)
        self._rows_rate.count(at, max(0, outcome.counts.read - (progress.last.records if progress else 0)))

    def _change(self, work: events.WorkChanged, at: float) -> None:
        self._work = work
        if not work.ready and not work.in_flight:
            self._done = 0
        known, self._large = self._large, {}
        for file in work.large:
            progress = known.get(file.file) or _Progress(file, at)
            self._rows_rate.count(at, progress.advance(file, at))
            self._large[file.file] = progress

    def _note_trouble(self, event: Event) -> None:
        match event:
            case events.OutageBegan(resource, reason) | events.OutageReasonChanged(resource, reason):
                self._troubles[NAMES[resource]] = reason
            case events.OutageEnded(resource, _):
                self._troubles.pop(NAMES[resource], None)
            case events.DatabaseSlow(reason):
                self._troubles["database"] = reason
            case events.ObserverFailed(_, reason):
                self._troubles["observer"] = reason
            case events.ObserverWorks():
                self._troubles.pop("observer", None)
            case events.QueueSilent(reason):
                self._troubles["queue"] = reason
            case events.QueueAnswered():
                self._troubles.pop("queue", None)
            case events.FolderUnreadable(_, reason):
                self._troubles["folder"] = reason
            case events.FolderReadable():
                self._troubles.pop("folder", None)


#: What each resource is called in the panel.
NAMES = {
    Resource.DATABASE: "database",
    Resource.WORKERS: "workers",
    Resource.BUCKET: "bucket",
    Resource.BROKER: "Kafka",
}


def wording_of(destination: Resource) -> Wording:
    """Returns the words for a destination: a topic has no rows, and nothing is loaded into it."""
    return PUBLISHED if destination is Resource.BROKER else LOADED


class _Progress:
    """A large file under way."""

    def __init__(self, file: FileProgress, at: float) -> None:
        self.last = FileProgress(file.file, file.size, 0, 0)
        self._rows, self._bytes = Rate(), Rate()
        self._began = at

    def advance(self, file: FileProgress, at: float) -> int:
        """Returns how many records were read since the last report; a second pass begins anew."""
        rows = max(0, file.records - self.last.records)
        self._rows.count(at, rows)
        self._bytes.count(at, max(0, file.read_bytes - self.last.read_bytes))
        self.last = file
        return rows

    def shown(self, now: float) -> LargeFile:
        last = self.last
        left = _time_left(last.size - last.read_bytes, self._bytes.at(now))
        rate = round(self._rows.at(now), -2)
        return LargeFile(printable(last.file), last.size, last.read_bytes, rate, left)


def _time_left(number: int, rate: float) -> float | None:
    return round(number / rate) if rate else None


def _place(event: events.Started, started_in: str) -> str:
    """Returns where the rows go, without the password."""
    if event.topics is not None:
        return f"topics {event.topics}"
    return database_place(event.embedded_in, event.outside_database, started_in)


def database_place(embedded_in: str | None, outside: str | None, started_in: str) -> str:
    """Returns where a database is, without the password."""
    if embedded_in is not None:
        return f"embedded PostgreSQL in {_short(embedded_in, started_in)}"
    _, _, fields = database_line(embedded_in, outside)
    host = ":".join(str(fields[key]) for key in ("host", "port") if key in fields)
    return "/".join(part for part in (host, fields.get("dbname", fields.get("service", ""))) if part)


def _short(path: str, started_in: str) -> str:
    """Returns a path from the directory that the program was started in, if it lies there."""
    is_inside = bool(started_in) and Path(path).is_relative_to(started_in)
    return printable(os.path.relpath(path, started_in) if is_inside else path)
