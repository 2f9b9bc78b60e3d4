"""The view of a page, as it stands in its address: a range of time, and perhaps one vehicle."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import urlencode

from msgspec import Struct

from processing.counted import noun
from processing.errors import Misconfigured
from processing.times import read_time

#: The range of a page whose address names none.
USUAL = timedelta(hours=24)

#: Ranges to choose from, each up to now.
RANGES = {
    "1 hour": timedelta(hours=1),
    "6 hours": timedelta(hours=6),
    "24 hours": USUAL,
    "7 days": timedelta(days=7),
    "30 days": timedelta(days=30),
}


class View(Struct, frozen=True):
    """A range of time, whose end does not belong to it, and a vehicle, or None for the fleet."""

    since: datetime
    until: datetime
    vehicle: str | None = None

    @property
    def duration(self) -> timedelta:
        return self.until - self.since

    def address(self, path: str) -> str:
        """Returns the address of the page with this view."""
        range_ = {"since": _written(self.since), "until": _written(self.until)}
        return f"{path}?{urlencode({**({'vehicle': self.vehicle} if self.vehicle else {}), **range_})}"

    def of_vehicle(self, vehicle: str | None) -> "View":
        return View(self.since, self.until, vehicle)

    def __str__(self) -> str:
        return f"{self.since:%Y-%m-%d %H:%M} to {self.until:%Y-%m-%d %H:%M} UTC ({_spelled(self.duration)})"


def read_view(given: Mapping[str, str | None], now: datetime) -> View:
    """Reads since, until and vehicle, each of which may be missing; raises Misconfigured."""
    since, until = (_read(given, name) for name in ("since", "until"))
    if until is None:
        # A whole minute: the address is to be read, and sent, by people.
        until = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
        if since is not None and since >= until:
            raise Misconfigured("since lies ahead of now: give until, too")
    try:
        since = until - USUAL if since is None else since
    except OverflowError:
        raise Misconfigured("until is too early") from None
    if since >= until:
        raise Misconfigured("until has to be later than since")
    return View(since, until, _read_vehicle(given.get("vehicle") or ""))


def _read(given: Mapping[str, str | None], name: str) -> datetime | None:
    text = (given.get(name) or "").strip()
    return read_time(name, text) if text else None


def _read_vehicle(text: str) -> str | None:
    if "\0" in text or (not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)):
        raise Misconfigured("vehicle is no text that the database can hold")
    return text.strip() or None


def _written(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M}" if time.second == time.microsecond == 0 else time.isoformat()[:-6]


def _spelled(duration: timedelta) -> str:
    """Spells a duration in its largest unit that divides it, or nearly."""
    minutes = duration.total_seconds() / 60
    for unit, length in (("day", 24 * 60), ("hour", 60)):
        if minutes >= 2 * length or minutes == length:
            return f"{minutes / length:,.3g} {noun(minutes / length, unit)}"
    return f"{minutes:,.3g} {noun(minutes, 'minute')}"
