"""Writes one page with the plots over a range of time, to send to someone."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from config import Settings
from monitor.dashboard.report import write_report
from monitor.dashboard.view import read_view
from processing.errors import Misconfigured
from service.reading import Reading

#: A report may read more than a page of the dashboard.
_SECONDS = 600.0


def run(
    settings: Settings,
    since: str | None,
    until: str | None,
    vehicle: str | None,
    out: Path,
    say: Callable[[str], None],
) -> int:
    """Writes the report of the range, of the fleet or of a vehicle."""
    now = datetime.now(UTC)
    view = read_view({"since": since, "until": until, "vehicle": vehicle}, now)
    with Reading(settings, lambda: False, _SECONDS) as reading:
        page = reading.ask(partial(write_report, view=view, now=now))
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"can't write {out}: {error.strerror or error}") from None
    say(f"{out}: {view}, {len(page) / 1000:,.0f} kB")
    return 0
