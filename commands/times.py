"""Times that are options of commands."""

from datetime import datetime

from processing.errors import Misconfigured
from processing.times import parse_utc


def parse_time(text: str, option: str) -> datetime:
    """Returns a time in UTC, as is what has no offset; raises Misconfigured."""
    try:
        return parse_utc(text)
    except ValueError:
        raise Misconfigured(
            f"{option} {text!r}: it should be a time such as 2026-11-28, 2026-11-28T10:30 or "
            "2026-11-28T10:30+02:00; without an offset it is UTC"
        ) from None
