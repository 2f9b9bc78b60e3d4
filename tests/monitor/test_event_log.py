"""Log lines of events: docs/log_events.md lists each of them with its level and its fields."""

import re

import pytest
from msgspec.structs import replace

from monitor.event_log import DATABASE, LINES, OUTAGE_LINES, PUBLISHING, QUERY_IT, WATCHING, EventLog, lines
from monitor.log import LIBRARY_WARNING, LINES_DROPPED
from monitor.terminal import LIVE_VIEW_ENDED
from processing.batch import Outcome
from processing.sink import Counts, FirstReject
from service import events
from service.events import Event, NextTry, Resource
from tests.support import ROOT

PAGE = ROOT / "docs" / "log_events.md"

ENDED = Outcome(
    "a.json", "loaded", "it is stuck", "vehicle_status", 10, Counts(), 0.1, target="failed/a.json"
)
FIRST = FirstReject(1, "$.a[1]\x1b.b", "invalid")
REJECTED = replace(ENDED, reason="", counts=Counts(3, 2, 0, 1, 4), first_reject=FIRST)

SAMPLES: list[Event] = [
    events.Started("in", "native", 2, None, "data", None),
    events.Started("in", "native", 2, "/home/.env", None, "postgresql://u:secret@h:1/d?service=s"),
    events.Started("in", "native", 1, None, None, None, "fleet.* of Kafka at h:9092"),
    events.Stopped({}),
    events.Ended("no", 2),
    events.LoopTurned(),
    events.WorkersCounted(2),
    events.MetricsServed("http://127.0.0.1:9464/metrics"),
    events.MetricsFailed("no"),
    events.FileLoaded(ENDED),
    events.FileLoaded(REJECTED),
    events.FileDuplicate(ENDED),
    events.FileFailed(ENDED),
    events.FileWaiting(ENDED),
    events.FileRecovered("a.json"),
    events.ObjectsReturned(["a.json"], "no"),
    events.ObjectsReturned(["a.json", "b.json"], "no"),
    events.NothingToLoad("no"),
    events.WritersHidden("a.json"),
    events.WorkChanged(1, 2, 3, 2, 1),
    events.FilesSuspected(["a.json"], "no", NextTry()),
    events.FilesSuspected(["a.json", "b.json"], "no", NextTry()),
    events.WorkerDied(["a.json"], "no", NextTry()),
    events.WorkerDied(["a.json", "b.json"], "no", NextTry()),
    *(events.OutageBegan(resource, "no") for resource in Resource),
    *(events.OutageReasonChanged(resource, "no") for resource in Resource),
    *(events.OutageEnded(resource, 1.0) for resource in Resource),
    events.ObserverFailed("in", "no"),
    events.ObserverWorks("in"),
    events.QueueSilent("no"),
    events.QueueAnswered(),
    events.ObserverRestarted(),
    events.FolderListed(2),
    events.FolderUnreadable("in", "no"),
    events.FolderReadable("in"),
    events.ClaimPassedOver("in/.claimed/a", "no"),
    events.EntriesIgnored(["a.csv"]),
    events.EntriesIgnored(["a.csv", "b"]),
    events.DatabaseSlow("it recovers"),
    events.DatabaseNew("the embedded database in data"),
    events.MarkerUnwritten("in", "no space left"),
    events.CommitsUnsafe(),
    events.WorkersFewer(18, 64, 47),
    events.PoolerFound(),
    events.LocksFew(64, 400, 256, 1500),
    events.PartitionMade("vehicle_status_history", "2026-06-05"),
    events.RowsInOther("vehicle_status_history", 10, 2),
    events.DayDropped("vehicle_status_history", "2026-06-05", 10),
    events.StraysDropped("vehicle_status_history", 10),
    events.HousekeepingFailed("no"),
]


class RecordingLog:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def info(self, name: str, **fields: object) -> None:
        self.lines.append(("info", name, fields))

    def warning(self, name: str, **fields: object) -> None:
        self.lines.append(("warning", name, fields))

    def error(self, name: str, **fields: object) -> None:
        self.lines.append(("error", name, fields))


def written(event: Event) -> list[tuple[str, str, dict[str, object]]]:
    log = RecordingLog()
    EventLog(log).write(event)  # type: ignore[arg-type]
    return log.lines


def documented() -> dict[str, set[str]]:
    """Returns the fields of each line of the page, by the line's name."""
    rows = re.findall(r"^\| `([^`]+)` \| \w+(?: or \w+)* \|([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", fields)) for name, fields in rows}


def test_the_page_lists_each_line_with_its_fields() -> None:
    found: dict[str, set[str]] = {}
    for event in SAMPLES:
        for _, name, fields in lines(event):
            found.setdefault(name, set()).update(fields)
    of_the_log = {LIBRARY_WARNING: {"library", "message"}, LINES_DROPPED: {"lines", "reason"}}
    of_the_log[LIVE_VIEW_ENDED] = {"reason"}
    assert documented() == {**found, **of_the_log}


def test_there_is_a_sample_of_each_event_and_a_constant_for_each_line() -> None:
    ours = {event for event in Event.__subclasses__() if event.__module__ == events.__name__}
    assert {type(event) for event in SAMPLES} == ours
    constants = {
        WATCHING,
        DATABASE,
        PUBLISHING,
        QUERY_IT,
        *(name for _, name in [*LINES.values(), *OUTAGE_LINES.values()]),
    }
    assert constants == {name for event in SAMPLES for _, name, _ in lines(event)}


def test_a_worker_s_death_names_its_file_and_what_happens_next() -> None:
    assert written(events.WorkerDied(["a\n.json"], "signal 11", NextTry(pause=0.25))) == [
        (
            "error",
            "worker died",
            {"file": "a\\n.json", "reason": "signal 11", "next": "tried again alone in 0.2 s"},
        )
    ]


def test_a_worker_s_death_names_the_first_files_of_a_batch_and_their_number() -> None:
    names = [f"{number}.json" for number in range(500)]
    ((_, _, fields),) = written(events.WorkerDied(names, "signal 11", NextTry()))
    assert fields == {
        "files": 500,
        "first": "0.json, 1.json, 2.json",
        "reason": "signal 11",
        "next": "each is tried again alone",
    }


def test_a_poison_file_is_announced_as_failing() -> None:
    ((_, _, fields),) = written(events.WorkerDied(["a.json"], "signal 11", NextTry(is_poison=True)))
    assert fields["next"] == "fails, is not read again"


@pytest.mark.parametrize(("reason", "level"), [("", "info"), ("it can't be moved", "warning")])
def test_a_loaded_file_that_is_still_there_is_a_warning(reason: str, level: str) -> None:
    ((found, _, _),) = written(events.FileLoaded(Outcome("a.json", "loaded", reason)))
    assert found == level


def test_the_start_shows_no_password() -> None:
    assert "secret" not in str([written(event) for event in SAMPLES])


def test_a_reject_makes_loaded_a_warning_with_the_first_reason_and_path() -> None:
    ((level, name, fields),) = written(events.FileLoaded(REJECTED))
    assert (level, name) == ("warning", "loaded")
    assert (fields["rejected"], fields["first_reason"]) == (1, "invalid")
    assert fields["first_path"] == "$.a[1]\\x1b.b"
    ((level, _, fields),) = written(events.FileLoaded(replace(REJECTED, counts=Counts(3, 3, 0, 0))))
    assert level == "info" and "first_reason" not in fields
