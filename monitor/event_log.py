"""Writes events as log lines; docs/log_events.md lists the lines with their fields."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from msgspec.structs import asdict
from psycopg2.extensions import parse_dsn

from monitor.log import Log
from processing.batch import Outcome
from processing.counted import counted
from processing.printable import printable
from service import events
from service.events import Event, Resource

Level = Literal["info", "warning", "error"]

#: Level, name and fields of a log line.
Line = tuple[Level, str, dict[str, Any]]

WATCHING = "watching"
DATABASE = "database"
QUERY_IT = "query it"
PUBLISHING = "publishing"

#: Level and name of the line of each event that has one line with the event's own fields, or nearly so.
LINES: dict[type[Event], tuple[Level, str]] = {
    events.Stopped: ("info", "stopped"),
    events.Ended: ("error", "ended"),
    events.MetricsServed: ("info", "serving metrics"),
    events.MetricsFailed: ("warning", "metrics failed"),
    events.FileLoaded: ("info", "loaded"),
    events.FileDuplicate: ("info", "duplicate"),
    events.FileFailed: ("warning", "failed"),
    events.FileWaiting: ("info", "waiting"),
    events.FileRecovered: ("warning", "file recovered"),
    events.ObjectsReturned: ("warning", "returned"),
    events.NothingToLoad: ("info", "nothing to load"),
    events.WritersHidden: ("warning", "writers can't be seen"),
    events.FilesSuspected: ("warning", "suspected"),
    events.WorkerDied: ("error", "worker died"),
    events.ObserverFailed: ("error", "not observing, only scanning"),
    events.ObserverWorks: ("info", "observing again"),
    events.ObserverRestarted: ("warning", "observer restarted"),
    events.FolderUnreadable: ("error", "cannot read the watch folder"),
    events.FolderReadable: ("info", "reading the watch folder again"),
    events.ClaimPassedOver: ("warning", "passed over"),
    events.EntriesIgnored: ("warning", "ignored"),
    events.QueueSilent: ("warning", "the queue does not answer, only listing"),
    events.QueueAnswered: ("info", "the queue answers again"),
    events.DatabaseSlow: ("info", "the embedded database is starting"),
    events.DatabaseNew: ("info", "new database"),
    events.MarkerUnwritten: ("warning", "cannot mark the watch folder"),
    events.CommitsUnsafe: ("warning", "database runs without fsync"),
    events.WorkersFewer: ("warning", "fewer workers"),
    events.PoolerFound: ("warning", "a pooler is in between"),
    events.LocksFew: ("warning", "the database has few locks"),
    events.PartitionMade: ("info", "a day has its partition now"),
    events.RowsInOther: ("warning", "rows went to other"),
    events.DayDropped: ("info", "an old day was dropped"),
    events.StraysDropped: ("info", "old rows of other were dropped"),
    events.HousekeepingFailed: ("warning", "housekeeping failed"),
}

#: Events without a line: too many to be read, and of no interest while all is well.
SILENT = events.LoopTurned, events.WorkersCounted, events.FolderListed, events.WorkChanged

OUTAGE_LINES: dict[tuple[type[Event], Resource], tuple[Level, str]] = {
    (events.OutageBegan, Resource.DATABASE): ("warning", "waiting for the database"),
    (events.OutageReasonChanged, Resource.DATABASE): ("warning", "the database is still away"),
    (events.OutageEnded, Resource.DATABASE): ("info", "the database is back"),
    (events.OutageBegan, Resource.WORKERS): ("warning", "cannot start workers"),
    (events.OutageReasonChanged, Resource.WORKERS): ("warning", "still cannot start workers"),
    (events.OutageEnded, Resource.WORKERS): ("info", "workers start again"),
    (events.OutageBegan, Resource.BUCKET): ("warning", "waiting for the bucket"),
    (events.OutageReasonChanged, Resource.BUCKET): ("warning", "the bucket is still away"),
    (events.OutageEnded, Resource.BUCKET): ("info", "the bucket is back"),
    (events.OutageBegan, Resource.BROKER): ("warning", "waiting for Kafka"),
    (events.OutageReasonChanged, Resource.BROKER): ("warning", "Kafka is still away"),
    (events.OutageEnded, Resource.BROKER): ("info", "Kafka is back"),
}

#: Fields with names of files: their characters are not ours.
_PATHS = ("file", "folder", "path", "place")

#: What of a connection string may be shown.
_SHOWN = ("host", "port", "dbname", "user", "service")


def current_directory() -> str:
    """Returns the directory that the program was started in, if it is still there."""
    try:
        return os.getcwd()
    except OSError:  # it is gone
        return "/"


#: Where files went is shown from the directory that the program was started in, which may vanish.
_STARTED_IN = current_directory()

#: A line names at most this many files of a batch.
_NAMED_FILES = 3

#: A path in a document has the names of its fields, which may be long.
_PATH_CHARACTERS = 200

_WATCHED_TOTALS = ("loaded", "duplicate", "failed", "waiting", "rows", "rejected")

_HIDDEN = {
    "reason": "another user's file, or a network file system: it must be unchanged for QUIET_SECONDS instead",
    "advice": "write under a temporary name and rename, or give the daemon the writer's user or CAP_LEASE",
}

_OTHER = {
    "reason": "a lock was not free when their day began, or too many days have a partition",
    "advice": "ends by itself or by python main.py maintain; the view rows_in_other has the days",
}

_POOLED = {
    "reason": "only a pool by sessions or by transactions works, and its own timeouts may end a large file",
    "advice": "two sessions a worker and five more; no query, transaction and idle timeouts for this user",
}


class EventLog:
    """The subscriber that writes a log line for each event."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.has_written = False

    def write(self, event: Event) -> None:
        for line in lines(event):
            self.write_line(line)

    def write_line(self, line: Line) -> None:
        level, name, fields = line
        self.has_written = True
        getattr(self._log, level)(name, **fields)


def lines(event: Event) -> Iterator[Line]:
    """Returns the log lines of an event: one, or a few at the start, or none of what only moves."""
    match event:
        case events.Started():
            yield from _start(event)
            return
        case _ if isinstance(event, SILENT):
            return
        case events.OutageBegan() | events.OutageReasonChanged() | events.OutageEnded():
            level, name = OUTAGE_LINES[type(event), event.resource]
        case _:
            level, name = LINES[type(event)]
    match event:
        case events.FileLoaded(outcome) | events.FileDuplicate(outcome) | events.FileFailed(outcome):
            # A file that is loaded but can't be deleted needs somebody's attention, and so does a reject.
            yield "warning" if outcome.reason or outcome.counts.rejected else level, name, _counts(outcome)
        case events.FileWaiting(outcome):
            yield level, name, {"file": printable(outcome.name), "reason": outcome.reason}
        case events.FilesSuspected() | events.WorkerDied():
            yield level, name, {**_named(event.files), "reason": event.reason, "next": _next(event)}
        case events.ObjectsReturned(files, reason):
            yield level, name, {**_named(files), "reason": reason}
        case events.EntriesIgnored(files):
            yield level, name, {**_named(files), "reason": "only .json, .json.gz and .json.zst are read"}
        case events.Stopped(totals):
            yield level, name, {key: totals.get(key, 0) for key in _WATCHED_TOTALS}
        case _:
            fields = {key: value for key, value in asdict(event).items() if key != "resource"}
            fields |= {key: printable(fields[key]) for key in _PATHS if key in fields}
            yield level, name, fields | _explained(event)


def _start(event: events.Started) -> Iterator[Line]:
    folder = printable(event.folder)
    watching: dict[str, Any] = {"folder": folder, "observer": event.observer, "workers": event.workers}
    yield "info", WATCHING, watching | {"env_file": printable(event.env_file or "none")}
    if event.topics is not None:
        yield "info", PUBLISHING, {"topics": event.topics}
        return
    yield database_line(event.embedded_in, event.outside_database)
    yield "info", QUERY_IT, {"with_command": "python main.py sql 'select * from vehicle_status'"}


def database_line(embedded_in: str | None, outside: str | None) -> Line:
    """Returns the line that says where rows go."""
    if embedded_in is not None:
        return "info", DATABASE, {"embedded_in": printable(embedded_in)}
    parts = parse_dsn(outside or "")
    return "info", DATABASE, {key: value for key, value in parts.items() if key in _SHOWN}


def _counts(outcome: Outcome) -> dict[str, object]:
    fields: dict[str, object] = {"file": printable(outcome.name)}
    if outcome.kind:
        counts = outcome.counts
        fields |= {"kind": outcome.kind, "rows": counts.read, "inserted": counts.inserted}
        fields |= {"duplicate": counts.duplicate, "rejected": counts.rejected}
        if counts.empty:
            fields["empty"] = counts.empty
    if outcome.first_reject and outcome.counts.rejected:
        path = printable(outcome.first_reject.path)[:_PATH_CHARACTERS]
        fields |= {"first_reason": outcome.first_reject.reason, "first_path": path}
    fields["seconds"] = round(outcome.seconds, 4)
    if outcome.target:
        is_address = "://" in outcome.target  # of an object; a path is absolute, and has no such thing
        target = outcome.target if is_address else os.path.relpath(outcome.target, _STARTED_IN)
        fields["moved_to"] = printable(target)
    if outcome.reason:
        fields["reason"] = outcome.reason
    return fields


def _named(files: Sequence[str]) -> dict[str, object]:
    """Returns the field of one file, or the number of files and the first of them."""
    if len(files) == 1:
        return {"file": printable(files[0])}
    return {"files": len(files), "first": ", ".join(printable(name) for name in files[:_NAMED_FILES])}


def _next(event: events.FilesSuspected | events.WorkerDied) -> str:
    if event.next.is_poison:
        return "fails, is not read again"
    if event.next.pause:
        return f"tried again alone in {event.next.pause:.1f} s"
    return "tried again alone" if len(event.files) == 1 else "each is tried again alone"


def _explained(event: Event) -> dict[str, str]:
    """Returns the fields that say more than the event itself: why it matters, what to do."""
    match event:
        case events.FileRecovered():
            return {"reason": "worker died while removing it"}
        case events.WritersHidden():
            return _HIDDEN
        case events.ObserverRestarted():
            return {"reason": "thread died or folder was replaced"}
        case events.CommitsUnsafe():
            return {"reason": "fsync=off: if its machine crashes it may lose rows whose files are deleted"}
        case events.WorkersFewer():
            own = f"the database allows {event.connections} connections"
            return {"reason": f"{own}: a worker may need two, and others need some"}
        case events.PoolerFound():
            return _POOLED
        case events.RowsInOther():
            return _OTHER
        case events.LocksFew():
            own = f"only {counted(event.days, 'day')} of a table can have a partition"
            need = f"set max_locks_per_transaction to {event.wanted} for {event.wanted_days:,}"
            return {"reason": f"max_locks_per_transaction={event.setting}: {own}; {need}"}
        case _:
            return {}
