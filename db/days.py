"""Conditions on days that keep a statement from reading or locking partitions of other days."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta

#: Consecutive days: the beginning of the first, and the end of the last.
Span = tuple[str, str]

#: Spans of one statement, at most: all of them are planned for each partition in them.
MOST_SPANS = 50


def day_spans(days: Iterable[date]) -> list[Span]:
    """Returns the spans of some days, in order."""
    runs: list[list[date]] = []
    for day in sorted(days):
        if runs and day - runs[-1][1] <= timedelta(1):
            runs[-1][1] = day
        else:
            runs.append([day, day])
    return [(f"{first.isoformat()} 00:00:00+00", _behind(last)) for first, last in runs]


def within(spans: Sequence[Span], column: str) -> str:
    """Returns a condition: the column, a timestamptz, is in one of the spans.

    The planner leaves out partitions only for constants of exactly this type. Otherwise it locks all of them
    until COMMIT; and while the partition "other" is locked, no new day can get its own.
    """
    return " OR ".join(
        f"{column} >= '{first}'::timestamptz AND {column} < '{end}'::timestamptz" for first, end in spans
    )


def _behind(day: date) -> str:
    return f"{(day + timedelta(1)).isoformat()} 00:00:00+00" if day < date.max else "infinity"


def spans_of(times: Iterable[datetime]) -> list[Span]:
    """Returns the spans of times in UTC; one span from first to last if there are more than MOST_SPANS."""
    spans = day_spans({time.date() for time in times})
    return spans if len(spans) <= MOST_SPANS else [(spans[0][0], spans[-1][1])]
