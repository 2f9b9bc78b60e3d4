"""Log lines of a consumer of topics: docs/kafka.md lists each of them with its level and its fields."""

import re

import pytest

from monitor.event_log import EventLog
from monitor.stream_log import LINES, StreamLog
from processing.sink import Counts, FirstReject
from processing.stream_loader import LoadedEntry
from service import stream_events
from service.events import Event
from service.stream_events import LagMeasured, PartitionLag
from tests.monitor.clock import Clock
from tests.monitor.test_event_log import RecordingLog
from tests.support import ROOT

REJECTED = LoadedEntry("t", "vehicles_status", Counts(3, 0, 0, 3), FirstReject(0, "$.a", "invalid"))
LOADED = stream_events.MessagesLoaded([REJECTED], 3, 100, 0.1)
LAGS = LagMeasured([PartitionLag("t", 0, 40, 7), PartitionLag("t", 1, 50, 2)])

SAMPLES: list[Event] = [
    stream_events.ConsumerStarted("h:9092", "g", ["a", "b"], None, "data", None),
    stream_events.ConsumerStopped(1, 2, 3),
    stream_events.TopicMissing("t"),
    stream_events.PartitionsRead(["t/0@0"]),
    stream_events.PartitionsGivenUp(["t/0"], False),
    LOADED,
    stream_events.PositionsFenced("no"),
    stream_events.ReadingPaused(5.0),
    stream_events.ReadingResumed(9.0),
    stream_events.GapAccepted("t/0", 1, None, "no"),
    LAGS,
    stream_events.MessagesBlocked("t/0", 4, 2),
]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log() -> RecordingLog:
    return RecordingLog()


@pytest.fixture
def shown(log: RecordingLog, clock: Clock) -> EventLog:
    return StreamLog(log, clock)  # type: ignore[arg-type]


def test_the_page_lists_each_line_with_its_level_and_its_fields(
    shown: EventLog, log: RecordingLog, clock: Clock
) -> None:
    clock.now = 20
    for event in SAMPLES:
        shown.write(event)
    found = {(name, level): set(fields) for level, name, fields in log.lines if name != "database"}
    section = (ROOT / "docs" / "kafka.md").read_text().partition("\n## Log lines\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \|([^|]*)\|", section, re.MULTILINE)
    assert found == {(name, level): set(re.findall(r"`(\w+)`", fields)) for name, level, fields in rows}


def test_there_is_a_sample_of_each_event() -> None:
    ours = {event for event in Event.__subclasses__() if event.__module__ == stream_events.__name__}
    assert {type(event) for event in SAMPLES} == ours == set(LINES)


def test_what_was_loaded_is_summed_up_for_ten_seconds_at_least(
    shown: EventLog, log: RecordingLog, clock: Clock
) -> None:
    for now in (1, 5, 9.9, 10.0, 15):
        clock.now = now
        shown.write(LOADED)
        shown.write(LAGS)
    (line,) = [fields for _, name, fields in log.lines if name == "consumed"]
    counts = {"messages": 12, "rows": 12, "inserted": 0, "duplicate": 0, "rejected": 12}
    assert line == counts | {"partitions": 2, "lag": 9}


def test_a_look_at_a_consumer_that_has_loaded_nothing_writes_nothing(
    shown: EventLog, log: RecordingLog, clock: Clock
) -> None:
    clock.now = 20
    shown.write(LAGS)
    shown.write(stream_events.PartitionsGivenUp([], False))
    assert log.lines == []
