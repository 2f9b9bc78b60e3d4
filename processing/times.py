"""Times that a person types."""

from datetime import UTC, datetime

from processing.errors import Misconfigured


def read_time(name: str, text: str) -> datetime:
    """Reads a day or a time, which is UTC if it has no offset; raises Misconfigured with the name."""
    try:
        time = datetime.fromisoformat(text.strip())
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter for one that UTC's years do not have
        raise Misconfigured(
            f"{name} is {text!r}: it should be a day or a time, such as 2026-11-28, 2026-11-28T16:30 or "
            "2026-11-28T16:30+02:00; without an offset it is UTC"
        ) from None
