"""The last hour of the ledger, in steps of some seconds: kept in memory, and only its end is read again."""

import time
from collections.abc import Callable

from msgspec import Struct
from psycopg2.extensions import connection as Connection

STEP = 10
KEPT = 3600

#: Entries become visible at their COMMIT, up to this many seconds after the time that they bear. What takes
#: longer is counted when the hour is read from the beginning.
_LATE = 2 * STEP

#: Seconds of the past that are read at once, and seconds that one look may spend on the past.
_SLICE = 300
_SPEND = 0.5

_STEPS = f"""
    SELECT (floor(extract(epoch FROM finished_at) / {STEP}) * {STEP})::bigint,
           count(*) FILTER (WHERE state = 'loaded'),
           count(*) FILTER (WHERE state = 'failed'),
           sum(rows_inserted)::bigint, sum(rows_duplicate)::bigint, sum(rows_rejected)::bigint,
           percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP
               (ORDER BY extract(epoch FROM finished_at - started_at)::float8) FILTER (WHERE state = 'loaded')
    FROM mobileye_data.ingested_files
    WHERE finished_at >= to_timestamp(%s) AND finished_at < to_timestamp(%s)
    GROUP BY 1
"""


class Step(Struct, frozen=True):
    """The files that were finished within a step, their records, and the seconds from opening to visible."""

    start: int
    loaded: int = 0
    failed: int = 0
    inserted: int = 0
    duplicate: int = 0
    rejected: int = 0
    median_seconds: float | None = None
    p95_seconds: float | None = None

    @property
    def rows(self) -> int:
        return self.inserted + self.duplicate + self.rejected


class History:
    """Reads the hour backwards, as far as the time suffices that it may spend, and keeps up with its end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: dict[int, Step] = {}
        self._from: int | None = None  # all since then is known

    def read(self, connection: Connection) -> list[Step]:
        """Returns the steps of the hour that are known, without gaps, the one that has not ended included."""
        began, now = self._clock(), _now(connection)
        end, oldest = now - now % STEP + STEP, now - now % STEP + STEP - KEPT
        latest = max(self._steps, default=end - _SLICE)
        if self._from is None or latest < end - KEPT:
            self._steps, self._from = {}, end - _SLICE
            latest = self._from
        self._read(connection, max(latest - _LATE, oldest), end)
        while self._from > oldest:
            since = max(self._from - _SLICE, oldest)
            self._read(connection, since, self._from)
            self._from = since
            if self._clock() - began > _SPEND:
                break
        self._steps = {start: step for start, step in self._steps.items() if start >= oldest}
        self._from = max(self._from, oldest)
        return [self._steps.get(start, Step(start)) for start in range(self._from, end, STEP)]

    def _read(self, connection: Connection, since: int, until: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_STEPS, (since, until))
            for start in range(since, until, STEP):
                self._steps.pop(start, None)
            for start, loaded, failed, inserted, duplicate, rejected, seconds in cursor.fetchall():
                median, p95 = seconds or (None, None)
                self._steps[start] = Step(start, loaded, failed, inserted, duplicate, rejected, median, p95)
        self._steps.setdefault(until - STEP, Step(until - STEP))


def _now(connection: Connection) -> int:
    """Returns the time of the database's clock, by which entries are dated."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        ((now,),) = cursor.fetchall()
        return int(now)
