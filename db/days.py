"""Days as the bounds of a statement, such that no partition of another day is looked at, or locked."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta

#: Days that follow each other: the first, and the one behind the last.
Span = tuple[str, str]

#: So many spans in one statement: it is planned for each partition within them, with all of them.
MOST_SPANS = 50


def day_spans(days: Iterable[date]) -> list[Span]:
    """The spans of days, in order."""
    runs: list[list[date]] = []
    for day in sorted(days):
        if runs and day - runs[-1][1] <= timedelta(1):
            runs[-1][1] = day
        else:
            runs.append([day, day])
    return [(f"{first.isoformat()} 00:00:00+00", _behind(last)) for first, last in runs]


def within(spans: Sequence[Span], column: str) -> str:
    """As a condition on a timestamptz.

    Only constants of that very type leave partitions out when the statement is planned. All others are locked
    until COMMIT, and the "other" one among them keeps every new day out.
    """
    return " OR ".join(
        f"{column} >= '{first}'::timestamptz AND {column} < '{end}'::timestamptz" for first, end in spans
    )


def _behind(day: date) -> str:
    return f"{(day + timedelta(1)).isoformat()} 00:00:00+00" if day < date.max else "infinity"


def spans_of(times: Iterable[datetime]) -> list[Span]:
    """The days of some times in UTC; if they are scattered, all days from the first to the last."""
    spans = day_spans({time.date() for time in times})
    return spans if len(spans) <= MOST_SPANS else [(spans[0][0], spans[-1][1])]
