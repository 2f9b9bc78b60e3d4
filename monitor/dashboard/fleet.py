"""The sections about the fleet: the question of each, and its answer as a plot or as a part of a page."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pandas as pd
from msgspec import Struct
from psycopg2.extensions import connection as Connection

from db import present, questions
from monitor.dashboard import markup, numbers, plots
from monitor.dashboard.markup import Bar, Column, Link, Notice
from monitor.dashboard.plots import Options, colour
from monitor.dashboard.view import View
from processing.counted import counted

#: Makes the id of a vehicle a link to its page, or leaves it as it is.
Linker = Callable[[str], str | Link]

#: The path of the page.
PATH = "/fleet"

#: Minutes before an accident that are looked at.
_MINUTES = 10

#: Rows of a table, the newest of them.
_MOST_ACCIDENTS, _MOST_EVENTS, _MOST_DAYS = 20, 30, 7


class Part(Struct, frozen=True):
    """The content of a section: a plot, HTML, or both."""

    html: str = ""
    plot: Options | None = None


class Section(Struct, frozen=True):
    """A question with its title; answer() asks the database, and gives what to show."""

    title: str
    sub: str
    answer: Callable[[Connection], Part]
    size: str = ""


def sections(view: View, *, has_links: bool = True) -> list[Section]:
    """Returns the sections of a vehicle or of the fleet; links lead to the pages of vehicles."""
    if view.vehicle is not None:
        return _of_vehicle(view, view.vehicle)
    return _of_fleet(view, has_links)


def _of_fleet(view: View, has_links: bool) -> list[Section]:
    link = _linker(view) if has_links else str
    return [
        _by_hour(view),
        Section("Vehicles", "by their latest status, now", _by_status),
        Section("Busiest vehicles", "by detections in the range", partial(_busiest, view, link)),
        _before_accidents(view, link),
        Section("Files", "a day, by the UTC day on which they were finished", partial(_files, view)),
        Section("Rejected records", "of all time, by reason", _rejects),
    ]


def _of_vehicle(view: View, vehicle: str) -> list[Section]:
    seen = "what it saw, larger where it saw more, and its status; UTC"
    return [
        Section("Latest status", "", partial(_latest, vehicle), "wide"),
        Section("Time line", seen, partial(_time_line, view, vehicle), "wide"),
        _by_hour(view),
        _before_accidents(view, str),
    ]


def _before_accidents(view: View, link: Linker) -> Section:
    sub = f"reported in the range, with what the vehicle saw in the {_MINUTES} minutes before"
    return Section("Accidents", sub, partial(_accidents, view, link), "wide")


def _linker(view: View) -> Linker:
    return lambda vehicle: Link(vehicle, view.of_vehicle(vehicle).address(PATH))


def _by_hour(view: View) -> Section:
    width = plots.width_of_bars(view)
    hours = int(width / timedelta(hours=1))
    spelled = (
        "an hour"
        if hours == 1
        else f"{hours} hours"
        if hours < 24
        else "a day"
        if hours == 24
        else f"{hours // 24} days"
    )

    def answer(asked: Connection) -> Part:
        since = view.since.replace(minute=0, second=0, microsecond=0)
        frame = questions.detections_by_hour(asked, since, view.until, view.vehicle)
        if frame.empty:
            return Part(_nothing_seen(asked, view))
        return Part(plot=plots.detections_over_time(frame, view))

    return Section("Detections", f"by type; each bar covers {spelled}; UTC", answer, "wide")


def _nothing_seen(asked: Connection, view: View) -> str:
    """Says that the range is empty, and leads to one that is not."""
    day = present.newest_day(asked)
    if day is None:
        return markup.notices(
            Notice("There are no detections yet. Let the demo write some:", "", "python main.py demo")
        )
    whole = View(day, day + timedelta(days=1), view.vehicle)
    link = Link("show that day", whole.address(PATH))
    return markup.notices(
        Notice(f"No detections in this range. The newest are of {numbers.day(day)}:", "", "", link)
    )


def _by_status(asked: Connection) -> Part:
    frame = questions.vehicles_by_status(asked).sort_values("vehicles", ascending=False)
    if frame.empty:
        return Part(markup.notices(Notice("No vehicle has reported its status yet.")))
    items = [
        Bar(
            str(row.status),
            int(row.vehicles),
            colour(str(row.status), n),
            f"last report {numbers.time(row.latest_report)} UTC",
        )
        for n, row in enumerate(frame.itertuples())
    ]
    return Part(markup.bars(items))


def _busiest(view: View, link: Linker, asked: Connection) -> Part:
    frame = questions.busiest_vehicles(asked, view.since, view.until)
    if frame.empty:
        return Part(markup.notices(Notice("No vehicle detected anything in this range.")))
    items = [
        Bar(
            link(row.vehicle_id),
            int(row.detections),
            plots.colour("detections", 0),
            counted(row.objects, "object"),
        )
        for row in frame.itertuples()
    ]
    return Part(markup.bars(items))


def _accidents(view: View, link: Linker, asked: Connection) -> Part:
    frame = questions.accidents(asked, view.since, view.until, _MINUTES)
    if view.vehicle is not None:
        frame = frame[frame["vehicle_id"] == view.vehicle]
    if frame.empty:
        return Part(markup.notices(Notice("No accident was reported in this range.", "good")))
    columns = [Column("UTC"), Column("vehicle", "name"), Column("seen before"), Column("last seen", "number")]
    rows = [
        (numbers.time(at), link(vehicle), _seen(seen), _seconds_before(seen["last_seen"].max(), at))
        for (at, vehicle), seen in frame.groupby(["report_time", "vehicle_id"], sort=True)
    ]
    shown = rows[-_MOST_ACCIDENTS:][::-1]
    return Part(markup.table(columns, shown) + _rest(len(rows), len(shown), "accidents"))


def _seen(seen: pd.DataFrame) -> str:
    found = [f"{row.objects:,} {row.object_type}" for row in seen.itertuples() if not pd.isna(row.objects)]
    return ", ".join(found) or "nothing"


def _seconds_before(last: pd.Timestamp, at: pd.Timestamp) -> str:
    return numbers.NONE if pd.isna(last) else f"{(at - last).total_seconds():,.0f} s before"


def _rest(all_: int, shown: int, what: str) -> str:
    return "" if all_ == shown else markup.notices(Notice(f"The last {shown:,} of {all_:,} {what}."))


def _files(view: View, asked: Connection) -> Part:
    frame = questions.files_by_day(asked, view.since, view.until)
    if frame.empty:
        return Part(markup.notices(Notice("No file was finished in this range.")))
    days = frame.groupby(["day"])[
        ["files", "bytes", "rows_inserted", "rows_duplicate", "rows_rejected"]
    ].sum()
    columns = [
        Column("day", "name"),
        *(Column(name, "number") for name in ("files", "size", "inserted", "duplicate", "rejected")),
    ]
    rows = [
        (numbers.day(row.Index), numbers.count(row.files), numbers.size(row.bytes),
         *map(numbers.count, (row.rows_inserted, row.rows_duplicate, row.rows_rejected)))
        for row in days.sort_index(ascending=False).head(_MOST_DAYS).itertuples()
    ]  # fmt: skip
    return Part(markup.table(columns, rows) + _rest(len(days), len(rows), "days"), plots.files_a_day(frame))


def _rejects(asked: Connection) -> Part:
    frame = questions.rejects_by_reason(asked)
    if frame.empty:
        return Part(markup.notices(Notice("No record was ever rejected.", "good")))
    columns = [Column("reason", "name"), Column("kind of file"), Column("records", "number"),
               Column("open", "number"), Column("latest, UTC", "number")]  # fmt: skip
    rows = [
        (
            str(row.reason),
            str(row.kind),
            numbers.count(row.records),
            numbers.count(row.open),
            numbers.time(row.latest),
        )
        for row in frame.itertuples()
    ]
    return Part(markup.table(columns, rows))


def _latest(vehicle: str, asked: Connection) -> Part:
    frame = questions.latest_status(asked, vehicle)
    if frame.empty:
        return Part(markup.notices(Notice("This vehicle has never reported a status.")))
    (row,) = frame.itertuples()
    extra = "" if row.extra is None or pd.isna(row.extra) else str(row.extra)
    columns = [Column("status", "name"), Column("reported, UTC"), Column("other fields")]
    return Part(markup.table(columns, [(str(row.status), numbers.time(row.report_time), extra)]))


def _time_line(view: View, vehicle: str, asked: Connection) -> Part:
    frame = questions.vehicle_timeline(asked, vehicle, view.since, view.until)
    if frame.empty:
        return Part(_nothing_seen(asked, view))
    shown = frame.tail(plots.MOST_POINTS)
    columns = [Column("UTC"), Column("what", "name"), Column("objects", "number"), Column("file", "number")]
    rows = [_event(row) for row in frame.tail(_MOST_EVENTS).iloc[::-1].itertuples()]
    table = markup.table(columns, rows) + _rest(len(frame), len(rows), "events")
    return Part(_rest(len(frame), len(shown), "events are plotted") + table, plots.time_line(shown, view))


def _event(row: Any) -> tuple[str, ...]:
    value = "" if pd.isna(row.value) else f"{row.value:,}"
    return f"{row.at:%Y-%m-%d %H:%M:%S.%f}"[:-3], str(row.what), value, str(row.file_id)
