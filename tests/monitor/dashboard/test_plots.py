"""The plots hold what the tables hold, and no name from outside is a key in them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.dashboard import plots
from monitor.dashboard.drawing import Drawing
from monitor.dashboard.history import Step
from monitor.dashboard.view import View

SINCE = datetime(2026, 11, 27, 16, 31, tzinfo=UTC)
VIEW = View(SINCE, SINCE + timedelta(hours=24))


def by_hour(*rows: tuple[datetime, str, int]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["hour", "object_type", "detections"])
    return frame.astype({"object_type": "category"})


def points(options: Any) -> dict[str, list[Any]]:
    return {series["name"]: series["data"] for series in options["series"]}


def keys(value: Any) -> Iterator[str]:
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield key
        yield from keys(inner)
    for inner in value if isinstance(value, list) else ():
        yield from keys(inner)


@pytest.mark.parametrize(
    ("hours", "width"),
    [
        (1, 1),
        (24, 1),
        (60, 1),
        (61, 3),
        (24 * 7, 3),
        (24 * 30, 12),
        (24 * 60, 24),
        (24 * 61, 48),
        (24 * 365, 168),
    ],
)
def test_there_are_at_most_about_sixty_bars(hours: int, width: int) -> None:
    view = View(SINCE, SINCE + timedelta(hours=hours))
    assert plots.width_of_bars(view) == timedelta(hours=width)


def test_a_bar_stands_in_the_middle_of_its_hour() -> None:
    hour = datetime(2026, 11, 27, 18, tzinfo=UTC)
    options = plots.detections_over_time(by_hour((hour, "cars", 3), (hour, "signs", 4)), VIEW)
    middle = 1000 * int((hour + timedelta(minutes=30)).timestamp())
    assert points(options) == {"signs": [[middle, 4]], "cars": [[middle, 3]]}
    ends = (options["xAxis"]["min"] / 1000, options["xAxis"]["max"] / 1000)
    assert [datetime.fromtimestamp(end, UTC).strftime("%dT%H:%M") for end in ends] == ["27T16:00", "28T17:00"]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 24 * 40), st.sampled_from(["cars", "signs", "x"]), st.integers(0, 1000)),
        min_size=1,
    ),
    st.integers(1, 24 * 40),
)
def test_no_detection_gets_lost_in_wider_bars(rows: list[tuple[int, str, int]], hours: int) -> None:
    start = SINCE.replace(minute=0)
    frame = by_hour(*((start + timedelta(hours=hour), kind, count) for hour, kind, count in rows))
    options = plots.detections_over_time(frame, View(SINCE, SINCE + timedelta(hours=hours)))
    drawn = {name: sum(count for _, count in data) for name, data in points(options).items()}
    assert drawn == frame.groupby(frame["object_type"].astype(str))["detections"].sum().to_dict()


def test_rates_are_by_the_second_and_leave_out_the_step_that_has_not_ended() -> None:
    steps = [Step(0, 10, 1, 100, 20, 5), Step(10), Step(20, 99)]
    assert points(plots.rows_a_second(steps)) == {
        "inserted": [[0, 10.0], [10_000, 0.0]],
        "duplicate": [[0, 2.0], [10_000, 0.0]],
        "rejected": [[0, 0.5], [10_000, 0.0]],
    }
    assert points(plots.files_a_second(steps))["failed"] == [[0, 0.1], [10_000, 0.0]]


def test_where_no_file_was_loaded_there_is_no_time() -> None:
    steps = [Step(0, 1, median_seconds=0.004, p95_seconds=0.01), Step(10), Step(20)]
    assert points(plots.seconds_to_load(steps))["median"] == [[0, 4.0], [10_000, None]]


def test_a_time_line_has_detections_and_the_status_between_reports() -> None:
    at = [SINCE + timedelta(hours=hour) for hour in range(4)]
    frame = pd.DataFrame({
        "at": at,
        "what": pd.Categorical(["driving", "cars", "accident", "driving"]),
        "value": pd.array([None, 3, None, None], dtype="Int32"),
    })  # fmt: skip
    options = plots.time_line(frame, VIEW)
    first, seen, crash, last = (1000 * int(time.timestamp()) for time in at)
    assert points(options)["cars"] == [[seen, "cars", 3]]
    bands = {
        series["name"]: series["markArea"]["data"] for series in options["series"] if "markArea" in series
    }
    end = 1000 * int(VIEW.until.timestamp())
    assert bands["accident"] == [[{"xAxis": crash}, {"xAxis": last}]]
    assert bands["driving"] == [[{"xAxis": first}, {"xAxis": crash}], [{"xAxis": last}, {"xAxis": end}]]


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@settings(deadline=None)
@given(NAMES, NAMES)
def test_no_name_from_outside_is_a_key(kind: str, status: str) -> None:
    """The browser would run a value whose key begins with a colon."""
    usual = set(keys(plots.detections_over_time(by_hour((SINCE, "cars", 1)), VIEW)))
    assert set(keys(plots.detections_over_time(by_hour((SINCE, kind, 1)), VIEW))) == usual
    for what in ((kind, status), ("cars", "driving")):
        frame = pd.DataFrame({"at": [SINCE] * 2, "what": what, "value": pd.array([1, None], dtype="Int32")})
        found = set(keys(plots.time_line(frame, VIEW)))
        assert not any(key.startswith(":") for key in found)


def test_a_drawing_escapes_what_it_shows() -> None:
    hostile = '</text><script>x</script>"`${1}\\u2028'
    drawn = Drawing().svg(plots.detections_over_time(by_hour((SINCE, hostile, 1)), VIEW), 800, 300)
    assert "<script" not in drawn and "&lt;script&gt;" in drawn
