"""The plots, as options of ECharts: a browser draws them in a page, and drawing.py in a report.

No name that comes from outside is a key in them: the library would run one that begins with a colon.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from monitor.dashboard.history import STEP, Step
from monitor.dashboard.view import View

Options = dict[str, Any]

#: Colours that can be told apart, also by people who see no red or no green, on white and on black.
_COLOURS = ("#3b82f6", "#f59e0b", "#14b8a6", "#a855f7", "#ec4899", "#84cc16", "#64748b", "#f97316")
#: The page brings it along, and knows the width of each text by it.
_FONT = "Roboto, system-ui, sans-serif"

_GRID, _INK = "rgba(128,136,150,0.22)", "#7b8594"

#: What is seen often keeps its colour in every plot.
_KNOWN = {
    "pedestrians": "#f59e0b",
    "cars": "#3b82f6",
    "trucks": "#a855f7",
    "signs": "#14b8a6",
    "obstacles": "#ec4899",
    "driving": "#3b82f6",
    "parking": "#94a3b8",
    "accident": "#ef4444",
    "inserted": "#3b82f6",
    "loaded": "#3b82f6",
    "duplicate": "#94a3b8",
    "rejected": "#f59e0b",
    "failed": "#ef4444",
    "median": "#3b82f6",
    "95 of 100 within": "#f59e0b",
    "waiting": "#a855f7",
}

#: Points of a time line that a browser draws without delay.
MOST_POINTS = 3000


def rows_a_second(steps: Sequence[Step]) -> Options:
    kinds = ("inserted", "duplicate", "rejected")
    return _over_time([_area(kind, _rates(steps, kind)) for kind in kinds], _ends(steps))


def files_a_second(steps: Sequence[Step]) -> Options:
    return _over_time([_area(kind, _rates(steps, kind)) for kind in ("loaded", "failed")], _ends(steps))


def seconds_to_load(steps: Sequence[Step]) -> Options:
    """Plots milliseconds on a logarithmic scale, and nothing where no file was loaded."""
    ended = steps[:-1]
    median = [[1000 * step.start, _milliseconds(step.median_seconds)] for step in ended]
    slow = [[1000 * step.start, _milliseconds(step.p95_seconds)] for step in ended]
    options = _over_time([_line("median", median), _line("95 of 100 within", slow)], _ends(steps))
    options["yAxis"].update(type="log", min=1)
    return options


def files_waiting(samples: Sequence[tuple[datetime, int, int]]) -> Options:
    data = [[_epoch(at), files] for at, files, _ in samples]
    end = samples[-1][0]
    options = _over_time([_area("waiting", data)], (_epoch(end - timedelta(hours=1)), _epoch(end)))
    options["yAxis"]["minInterval"] = 1
    return options


def width_of_bars(view: View) -> timedelta:
    """Returns the time that a bar covers, so that there are at most about 60."""
    for hours in (1, 3, 6, 12):
        if view.duration <= timedelta(hours=60 * hours):
            return timedelta(hours=hours)
    days = -(-view.duration // timedelta(days=60))
    return timedelta(days=days)


def detections_over_time(by_hour: pd.DataFrame, view: View) -> Options:
    """Plots detections by type, from a frame with hour, object_type and detections."""
    width, start, end = _bars(view)
    steps = ((by_hour["hour"] - start) // width).astype("int64")
    kinds = by_hour["object_type"].astype(str)
    # With the zeros, because bars are put on each other by their places in the data.
    counts = by_hour.groupby([steps, kinds])["detections"].sum().unstack(fill_value=0)
    middles = [_epoch(start + (step + 0.5) * width) for step in counts.index]
    series = [
        _bar(kind, [[at, int(count)] for at, count in zip(middles, counts[kind], strict=True)], number)
        for number, kind in enumerate(counts.sum().sort_values(ascending=False).index)
    ]
    return _over_time(series, (_epoch(start), _epoch(end)))


def _bars(view: View) -> tuple[timedelta, pd.Timestamp, pd.Timestamp]:
    """Returns the width of the bars, the beginning of the first and the end of the last."""
    width = width_of_bars(view)
    start = pd.Timestamp(view.since).floor("D" if width > timedelta(hours=1) else "h")
    return width, start, start - (start - pd.Timestamp(view.until)) // width * width


def files_a_day(by_day: pd.DataFrame) -> Options:
    """Plots files by their state, from a frame with day, state and files."""
    counts = by_day.groupby(["day", by_day["state"].astype(str)])["files"].sum().unstack(fill_value=0)
    noon = timedelta(hours=12)
    middles = [_epoch(day + noon) for day in counts.index]
    series = [
        _bar(state, [[at, int(count)] for at, count in zip(middles, counts[state], strict=True)], number)
        for number, state in enumerate(sorted(counts.columns, reverse=True))
    ]
    return _over_time(series, (_epoch(counts.index.min()), _epoch(counts.index.max() + 2 * noon)))


def time_line(events: pd.DataFrame, view: View) -> Options:
    """Plots what one vehicle saw and reported, from a frame with at, what and value (none for a status)."""
    seen, reported = events[events["value"].notna()], events[events["value"].isna()]
    kinds = sorted(seen["what"].astype(str).unique())
    series = [_seen(seen[seen["what"] == kind], kind, number) for number, kind in enumerate(kinds)]
    changes = [(_epoch(at), str(status)) for at, status in zip(reported["at"], reported["what"], strict=True)]
    for number, status in enumerate(dict.fromkeys(status for _, status in changes), len(kinds)):
        series.append(_reported(changes, status, number, _epoch(view.until)))
    options = _over_time(series, (_epoch(view.since), _epoch(view.until)))
    options["visualMap"] = {
        "show": False,
        "dimension": 2,
        "min": 1,
        "max": max([2, *(int(value) for value in seen["value"])]),
        "inRange": {"symbolSize": [5, 18]},
        "seriesIndex": list(range(len(kinds))),
    }
    rows = [*kinds, "status"]
    options["yAxis"] = {**_axis(), "type": "category", "data": rows, "splitLine": {"show": False}}
    options["tooltip"]["trigger"] = "item"
    return options


def _seen(seen: pd.DataFrame, kind: str, number: int) -> Options:
    """Returns the detections of one type, as points whose size is their value."""
    data = [[_epoch(at), kind, int(value)] for at, value in zip(seen["at"], seen["value"], strict=True)]
    points = _series("scatter", kind, data, number)
    return {**points, "itemStyle": {"color": colour(kind, number), "opacity": 0.75}}


def _reported(changes: Sequence[tuple[int, str]], status: str, number: int, until: int) -> Options:
    """Returns the reports of one status, and as pale areas the times until the next report."""
    ends = [at for at, _ in changes[1:]] + [until]
    times = [(at, end) for (at, name), end in zip(changes, ends, strict=True) if name == status]
    return {
        **_series("scatter", status, [[at, "status", 0] for at, _ in times], number),
        "symbol": "rect",
        "symbolSize": [6, 18],
        "markArea": {
            "silent": True,
            "itemStyle": {"color": colour(status, number), "opacity": 0.1},
            "data": [[{"xAxis": at}, {"xAxis": end}] for at, end in times],
        },
    }


def colour(name: str, number: int) -> str:
    """Returns the colour of a name, or that of a number in its place."""
    return _KNOWN.get(name) or _COLOURS[number % len(_COLOURS)]


def _over_time(series: Iterable[Options], ends: tuple[int, int]) -> Options:
    return {
        "useUTC": True,
        "animation": False,
        "textStyle": {"fontFamily": _FONT, "fontSize": 12},
        "grid": {"left": 4, "right": 12, "top": 30, "bottom": 4, "outerBoundsMode": "same"},
        "legend": {
            "top": 0,
            "left": 0,
            "type": "scroll",
            "icon": "roundRect",
            "itemWidth": 10,
            "itemHeight": 10,
            "textStyle": {"color": _INK},
        },
        "tooltip": {"trigger": "axis", "confine": True, "className": "tip", "axisPointer": {"type": "line"}},
        "xAxis": {**_axis(), "type": "time", "min": ends[0], "max": ends[1], "splitLine": {"show": False}},
        "yAxis": {**_axis(), "type": "value", "min": 0},
        "series": list(series),
    }


def _axis() -> Options:
    return {
        "axisLine": {"show": False},
        "axisTick": {"show": False},
        "axisLabel": {"color": _INK, "hideOverlap": True},
        "splitLine": {"lineStyle": {"color": _GRID}},
    }


def _series(kind: str, name: str, data: list[list[Any]], number: int) -> Options:
    return {
        "type": kind,
        "name": name,
        "data": data,
        "color": colour(name, number),
        "emphasis": {"disabled": True},
    }


def _line(name: str, data: list[list[Any]]) -> Options:
    return {**_series("line", name, data, 0), "showSymbol": False, "lineStyle": {"width": 1.5}}


def _area(name: str, data: list[list[Any]]) -> Options:
    # Without a line: that of a series of zeros would lie on the one below it.
    return {**_line(name, data), "stack": "all", "lineStyle": {"width": 0}, "areaStyle": {"opacity": 0.8}}


def _bar(name: str, data: list[list[Any]], number: int) -> Options:
    return {**_series("bar", name, data, number), "stack": "all", "barCategoryGap": "12%", "barMaxWidth": 48}


def _rates(steps: Sequence[Step], field: str) -> list[list[Any]]:
    """Returns counts a second; the last step has not ended."""
    return [[1000 * step.start, round(getattr(step, field) / STEP, 1)] for step in steps[:-1]]


def _ends(steps: Sequence[Step]) -> tuple[int, int]:
    end = 1000 * steps[-1].start
    return end - 3_600_000, end


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)


def _epoch(time: Any) -> int:
    return int(time.timestamp() * 1000)
