"""The page about the fleet, or about one vehicle, over the range of time that its address names."""

import asyncio
from datetime import UTC, datetime
from functools import partial

from fastapi import Request
from nicegui import ui
from starlette.responses import RedirectResponse, Response

from monitor.dashboard import fleet, markup
from monitor.dashboard.fleet import Section
from monitor.dashboard.frame import card, framed, plot
from monitor.dashboard.live import in_thread
from monitor.dashboard.markup import Notice
from monitor.dashboard.view import RANGES, View, read_view
from processing.errors import DatabaseUnavailable, Misconfigured
from service.reading import Reading

#: A browser that has the page connects at once; other programs never do.
_CONNECT_SECONDS = 60.0


async def show(request: Request, reading: Reading) -> Response | None:
    now, given = datetime.now(UTC), request.query_params
    try:
        view = read_view(given, now)
    except Misconfigured as error:
        with framed(request, fleet.PATH):
            _choose(read_view({}, now), now)
            ui.html(markup.notices(Notice(f"{error}.", "bad")))
        return None
    if not (given.get("since") and given.get("until")):
        # The address names the range, so that whoever gets it sees the same.
        return RedirectResponse(view.address(fleet.PATH))
    with framed(request, fleet.PATH):
        _choose(view, now)
        what = "The fleet" if view.vehicle is None else f"Vehicle {view.vehicle}"
        ui.label(f"{what}, {view}").classes("as-of").style("margin-bottom: 10px")
        with ui.element("div").classes("cards"):
            places = [(section, _place(section)) for section in fleet.sections(view)]
    await ui.context.client.connected(timeout=_CONNECT_SECONDS)
    await asyncio.gather(*(_fill(place, section, reading) for section, place in places))
    return None


def _choose(view: View, now: datetime) -> None:
    """Shows a form whose address is the view: it works with the browser's own history and bookmarks."""
    with ui.element("form").classes("choice").props(f'method=get action="{fleet.PATH}"'):
        with ui.element("div").classes("ranges"):
            for name, length in RANGES.items():
                until = read_view({}, now).until
                ui.link(f"last {name}", View(until - length, until, view.vehicle).address(fleet.PATH))
            if view.vehicle is not None:
                ui.link("whole fleet", view.of_vehicle(None).address(fleet.PATH))
        _input("since, UTC", "since", f"{view.since:%Y-%m-%dT%H:%M}", "datetime-local")
        _input("until, UTC", "until", f"{view.until:%Y-%m-%dT%H:%M}", "datetime-local")
        _input("vehicle (none: the fleet)", "vehicle", view.vehicle or "", "text")
        with ui.element("button").props("type=submit"):
            ui.label("Show")


def _input(label: str, name: str, value: str, kind: str) -> None:
    with ui.element("label"):
        ui.label(label)
        field = ui.element("input").props(f"name={name} type={kind}")
        # An attribute: as a property it would be set again, over what is typed, with each answer that comes.
        field.props["^value"] = value  # not as a text of props: it may hold quotes


def _place(section: Section) -> ui.element:
    with card(section.title, section.sub, section.size):
        with ui.element("div") as place:
            ui.label("Asking the database …").classes("sub")
        return place


async def _fill(place: ui.element, section: Section, reading: Reading) -> None:
    try:
        part = await in_thread(partial(reading.ask, section.answer))
    except (DatabaseUnavailable, Misconfigured) as error:
        part = fleet.Part(markup.notices(Notice(f"No answer of the database: {error}.", "bad")))
    except Exception as error:  # noqa: BLE001  # one section must not take the others along
        part = fleet.Part(markup.notices(Notice(f"This can't be shown: {error!r}.", "bad")))
    place.clear()
    with place:
        if part.plot is not None:
            plot(part.plot, "tall")
        if part.html:
            ui.html(part.html)
