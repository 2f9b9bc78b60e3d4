"""The page of the present, which shows what was gathered last as soon as there is something newer."""

from datetime import datetime

from fastapi import Request
from nicegui import ui

from monitor.dashboard import markup, now_parts, numbers, plots, topics_part
from monitor.dashboard.frame import Shown, card, framed, plot
from monitor.dashboard.live import Live, Present
from monitor.dashboard.plots import Options

#: Seconds between two looks for something newer.
_LOOK_SECONDS = 0.5


class _Page:
    """The parts of one open page."""

    def __init__(self) -> None:
        self._shown_at: datetime | None = None
        self._notices = Shown(markup.notices(markup.Notice("Gathering …")), "about")
        self._tiles = Shown()
        with ui.element("div").classes("cards"):
            self._plots = {
                "rows": _plot("Rows", "a second, by outcome, in steps of 10 s; UTC"),
                "files": _plot("Files", "a second, in steps of 10 s; UTC"),
                "seconds": _plot(
                    "Time to load a file",
                    "milliseconds from its opening to the COMMIT of its rows, without the time that it waits "
                    "in the folder; logarithmic; UTC",
                ),
                "waiting": _plot("Backlog", "files waiting in the folder, since this dashboard runs; UTC"),
            }
            with card(
                "Kafka topics", "what consumers have loaded, and what is left; UTC", "wide"
            ) as self._topics_card:
                self._topics = Shown()
            self._topics_card.set_visibility(False)
            with card("Published files", "by the ledger in Kafka; UTC", "wide") as self._published_card:
                self._published = Shown()
            self._published_card.set_visibility(False)
            self._failures = _card("Failed files", "kept in the failed folder; the newest first")
            self._waiting = _card("Waiting files", "the oldest first")
            self._rejects = _card("Rejected records", "open ones, the newest first", "wide")
            self._files = _card("Last files", "the newest first", "wide")
        self._as_of = ui.label().classes("as-of")

    def update(self, present: Present | None) -> None:
        if present is None or present.at == self._shown_at:
            return
        self._shown_at = present.at
        self._notices.show(now_parts.notices(present))
        self._tiles.show(now_parts.tiles(present))
        self._waiting.show(now_parts.waiting(present))
        if present.steps:
            self._draw("rows", plots.rows_a_second(present.steps))
            self._draw("files", plots.files_a_second(present.steps))
            self._draw("seconds", plots.seconds_to_load(present.steps))
        if present.waiting:
            self._draw("waiting", plots.files_waiting(present.waiting))
        if present.topics is not None:
            self._topics.show(topics_part.topics(present.topics))
            self._topics_card.set_visibility(True)
        if present.published is not None:
            self._published.show(topics_part.published(present.published))
            self._published_card.set_visibility(True)
        if present.ledger is not None:
            self._failures.show(now_parts.failures(present.ledger.failures))
            self._rejects.show(now_parts.rejects(present.ledger))
            self._files.show(now_parts.last_files(present.ledger))
        self._as_of.set_text(f"As of {numbers.time(present.at)} UTC. All times are UTC.")

    def _draw(self, name: str, options: Options) -> None:
        chart = self._plots[name]
        chart.options.clear()
        chart.options.update(options)
        chart.update()


def _plot(title: str, sub: str) -> ui.echart:
    with card(title, sub):
        return plot({})


def _card(title: str, sub: str, size: str = "") -> Shown:
    with card(title, sub, size):
        return Shown()


def show(request: Request, live: Live) -> None:
    with framed(request, "/"):
        page = _Page()

        def look() -> None:
            live.want()
            page.update(live.present)

        look()
        ui.timer(_LOOK_SECONDS, look)
