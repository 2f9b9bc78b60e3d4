"""Times that a person types."""

from datetime import UTC, datetime


def parse_utc(text: str) -> datetime:
    """Returns a day or a time in UTC, as is what has no offset; raises ValueError."""
    try:
        time = datetime.fromisoformat(text.strip())
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is beyond the years that there are") from None
