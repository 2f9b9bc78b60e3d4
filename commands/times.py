"""Times that a user types."""

from datetime import UTC, datetime

from processing.errors import Misconfigured


def parse_time(text: str, option: str) -> datetime:
    """Returns a time in UTC, as is what has no offset; raises Misconfigured."""
    try:
        time = datetime.fromisoformat(text.strip())
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Misconfigured(
            f"{option} {text!r}: it should be a time such as 2026-11-28, 2026-11-28T10:30 or "
            "2026-11-28T10:30+02:00; without an offset it is UTC"
        ) from None
