"""Lines for people: what is said of each event, and when files are summed up."""

from collections.abc import Sequence

import pytest

from config import LogLevel
from monitor.event_log import SILENT
from monitor.line_feed import SUMMARY_SECONDS, LineFeed, summary
from monitor.tally import PUBLISHED
from processing.batch import Outcome
from processing.sink import Counts, FirstReject
from service import events
from service.events import Event
from tests.monitor.test_event_log import SAMPLES


def loaded(name: str = "a.json", rows: int = 12) -> Event:
    return events.FileLoaded(Outcome(name, "loaded", kind="vehicles_status", counts=Counts(rows, rows)))


def told(feed: LineFeed, taken: Sequence[Event], now: float = 1.0) -> list[str]:
    """The lines without their times."""
    return [line.plain[9:] for line in feed.lines([(now, event) for event in taken], now)]


@pytest.fixture
def feed() -> LineFeed:
    return LineFeed(LogLevel.INFO)


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (Outcome("a", "loaded", kind="k", counts=Counts(3, 3)), "loaded a: 3 rows"),
        (Outcome("a", "loaded", kind="k", counts=Counts(1, 1)), "loaded a: 1 row"),
        (Outcome("a", "loaded", kind="k", counts=Counts(5, 3, 2)), "loaded a: 3 rows, 2 duplicate"),
        (Outcome("a", "loaded", kind="k"), "loaded a: 0 rows"),
        (
            Outcome(
                "a", "loaded", counts=Counts(2, 1, 0, 1), first_reject=FirstReject(1, "$.a[1]\x1b", "invalid")
            ),
            "warning loaded a: 1 row, 1 rejected (first: invalid at $.a[1]\\x1b)",
        ),
        (Outcome("a", "loaded", "it can't be moved"), "warning loaded a: 0 rows; it can't be moved"),
    ],
)
def test_a_loaded_file_is_told_with_what_it_brought(feed: LineFeed, outcome: Outcome, line: str) -> None:
    assert told(feed, [events.FileLoaded(outcome)]) == [line]


def test_a_duplicate_and_a_failed_file_are_told(feed: LineFeed) -> None:
    assert told(feed, [events.FileDuplicate(Outcome("a\n", "duplicate"))]) == [
        "duplicate a\\n: its bytes are loaded already"
    ]
    failed = Outcome("a", "failed", "expected JSON", target="/f/a")
    (line,) = told(feed, [events.FileFailed(failed)])
    assert line.startswith("warning failed a: expected JSON (moved to ") and line.endswith("/f/a)")


def test_what_goes_into_topics_is_published() -> None:
    feed = LineFeed(LogLevel.INFO, PUBLISHED)
    assert told(feed, [loaded("a")]) == ["published a: 12 records"]
    assert told(feed, [loaded()] * 6, 2.0) == []
    assert told(feed, [], 4.0) == ["6 files published, 72 records"]


def test_a_value_that_says_all_stands_without_its_name(feed: LineFeed) -> None:
    assert told(feed, [events.DatabaseNew("the database d")]) == ["new database: the database d"]
    started = told(feed, [events.Started("in", "native", 2, None, "data", None)])
    assert started[-1] == "query it: python main.py sql 'select * from vehicle_status'"


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
def test_each_event_is_one_printable_line_or_a_few(feed: LineFeed, event: Event) -> None:
    lines = told(feed, [event])
    assert all(line.isprintable() and line for line in lines)
    if isinstance(event, events.Started):
        assert len(lines) == (3 if event.topics is None else 2)
    else:
        assert len(lines) == (0 if isinstance(event, SILENT) else 1)


def test_few_files_are_named_and_many_are_counted(feed: LineFeed) -> None:
    assert len(told(feed, [loaded()] * 5)) == 5
    assert told(feed, [loaded()] * 6, 2.0) == []
    assert told(feed, [loaded()] * 1233, 3.0) == []
    assert told(feed, [loaded()], 4.0) == told(feed, [], 4.25) == []
    assert told(feed, [], 5.5) == ["1,240 files loaded, 14,880 rows"]
    assert told(feed, [loaded("last")], 6.0) == ["loaded last: 12 rows"]
    assert feed.rest(7.0) == []


def test_a_sum_is_told_after_a_while(feed: LineFeed) -> None:
    duplicates: list[Event] = [events.FileDuplicate(Outcome("a", "duplicate"))] * 10
    assert told(feed, [loaded()] * 10 + duplicates, 1.0) == []
    assert told(feed, [loaded()] * 10, 1.0 + SUMMARY_SECONDS) == [
        "10 files loaded, 120 rows, 10 duplicate files"
    ]
    assert [line.plain[9:] for line in feed.rest(9.0)] == ["10 files loaded, 120 rows"]


def test_among_many_files_each_warning_is_told(feed: LineFeed) -> None:
    bad = events.FileFailed(Outcome("bad", "failed", "no"))
    rejected = events.FileLoaded(Outcome("half", "loaded", counts=Counts(2, 1, 0, 1)))
    assert told(feed, [*[loaded()] * 100, bad, *[loaded()] * 100, rejected]) == [
        "warning failed bad: no",
        "warning loaded half: 1 row, 1 rejected",
    ]


def test_a_level_leaves_out_what_is_below() -> None:
    feed = LineFeed(LogLevel.WARNING)
    assert told(feed, [loaded(), events.FileFailed(Outcome("a", "failed", "no"))]) == ["warning failed a: no"]
    assert told(feed, [loaded()] * 100) == [] and feed.rest(9.0) == []


def test_the_end_is_two_lines() -> None:
    stopped = events.Stopped({"loaded": 1240, "rows": 14_880, "rejected": 1, "failed": 2, "waiting": 3})
    assert [line.plain for line in summary(stopped, 3725.0, "incoming")] == [
        "stopped after 1 h 02 min: 1,240 files loaded, 14,880 rows, 1 rejected record, 2 failed files",
        "3 files wait in incoming; python main.py status shows what failed",
    ]
    assert [line.plain for line in summary(events.Stopped({"loaded": 1, "rows": 1}), 5.0, "in")] == [
        "stopped after 5 s: 1 file loaded, 1 row",
        "no file waits; python main.py status shows all totals",
    ]
