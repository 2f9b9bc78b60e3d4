"""One page with the plots over a range of time: it needs no network, runs no script, and can be printed."""

from datetime import datetime

from psycopg2.extensions import connection as Connection

from monitor.dashboard import fleet, markup
from monitor.dashboard.drawing import Drawing
from monitor.dashboard.fleet import Part
from monitor.dashboard.view import View

#: Of a plot that takes the whole width, and of one that takes half of it.
_SIZES = {"wide": (1200, 300), "": (590, 300)}


def write_report(connection: Connection, view: View, now: datetime) -> str:
    """Returns the page as HTML."""
    drawing = Drawing()
    sections = fleet.sections(view, has_links=False)
    answers = [(section, section.answer(connection)) for section in sections]
    what = "The fleet" if view.vehicle is None else f"Vehicle {view.vehicle}"
    return markup.TEMPLATES.get_template("report.html").render(
        title=what,
        subtitle=f"{view}; written {now:%Y-%m-%d %H:%M} UTC",
        style=markup.STYLE,
        parts=[(section, part, _figure(drawing, section.size, part)) for section, part in answers],
    )


def _figure(drawing: Drawing, size: str, part: Part) -> str:
    return "" if part.plot is None else drawing.svg(part.plot, *_SIZES[size])
