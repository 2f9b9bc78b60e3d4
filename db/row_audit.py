"""Compares the rows of files with the ledger, day by day, the newest first."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from itertools import pairwise

from msgspec import Struct
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from db.days import MOST_SPANS, Span, day_spans, within
from db.tables import Table, Tables
from processing.counted import counted

#: Takes what is done next, how many steps are done, and how many there are.
Progress = Callable[[str, int, int], None]

#: Lines that are fetched from the server at once.
_PAGE = 10_000


def no_progress(what: str, done: int, total: int) -> None:
    """Does nothing: nobody watches."""


class Scope(Struct, frozen=True):
    """The files to look at: all, or those from one id on. Ids grow with time."""

    first: int = 0
    is_all: bool = True


def scope_since(cursor: Cursor, since: datetime | None) -> Scope:
    """Returns the files that were finished since then, with a few that were begun meanwhile."""
    if since is None:
        return Scope()
    cursor.execute("SELECT min(file_id) FROM mobileye_data.ingested_files WHERE finished_at >= %s", (since,))
    ((first,),) = cursor.fetchall()
    return Scope(2**62 if first is None else first, is_all=False)


class _Part(Struct, frozen=True):
    """A part of a table: one day, or times in no day's partition. The condition selects its rows."""

    table: Table
    label: str
    condition: str


def wrong_rows(
    connection: Connection, tables: Tables, scope: Scope, progress: Progress = no_progress
) -> Iterator[str]:
    """Yields files whose rows, with those that retention dropped, are not as many as their ledger entry says.

    Of a scope not all partitions are read: it ends where each file has all of its rows.
    """
    missing = _Missing(connection, scope)
    dropped = (
        "SELECT file_id, sum(rows)::bigint FROM mobileye_data.dropped_rows WHERE file_id >= %s GROUP BY 1"
    )
    for file_id, rows in _streamed(connection, dropped, scope.first):
        missing.subtract(file_id, rows)
    with connection.cursor() as cursor:
        parts = _parts(cursor, tables)
        for number, part in enumerate(parts):
            if not scope.is_all and not missing.files:
                break
            progress(part.label, number, len(parts))
            for file_id, rows in _counted(connection, part, scope):
                missing.subtract(file_id, rows)
            if part.table.has_latest and not scope.is_all:
                yield from _late(cursor, part, scope)
        yield from missing.flaws(cursor)


class _Missing:
    """The rows of each file that were not found yet: eight bytes a file, since there may be millions."""

    def __init__(self, connection: Connection, scope: Scope) -> None:
        self._strangers: dict[int, int] = {}
        self.files = 0
        self._first = self._last = 0
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT min(file_id), max(file_id) FROM mobileye_data.ingested_files WHERE file_id >= %s",
                (scope.first,),
            )
            ((first, last),) = cursor.fetchall()
        self._rows = array("q", bytes(8 * (last - first + 1) if first is not None else 0))
        if first is None:
            return
        self._first = first
        entries = "SELECT file_id, rows_inserted FROM mobileye_data.ingested_files WHERE file_id >= %s"
        for file_id, rows in _streamed(connection, f"{entries} AND rows_inserted > 0", first):
            self._rows[file_id - first] = rows
            self.files += 1

    def subtract(self, file_id: int, rows: int) -> None:
        """Counts rows that were found; a file that has none in the ledger gets a negative number."""
        place = file_id - self._first
        if not 0 <= place < len(self._rows):
            self._strangers[file_id] = self._strangers.get(file_id, 0) - rows
            return
        before = self._rows[place]
        self._rows[place] = before - rows
        self.files += (before != rows) - (before != 0)

    def flaws(self, cursor: Cursor) -> Iterator[str]:
        wrong = {self._first + place: rows for place, rows in enumerate(self._rows) if rows}
        wrong |= self._strangers
        file_ids = sorted(wrong)
        for start in range(0, len(file_ids), _PAGE):
            page = file_ids[start : start + _PAGE]
            cursor.execute(
                """
                SELECT file_id, name, rows_inserted
                FROM mobileye_data.ingested_files
                WHERE file_id = ANY (%s)
                """,
                (page,),
            )
            known = {file_id: (name, rows) for file_id, name, rows in cursor.fetchall()}
            for file_id in page:
                yield _flaw(file_id, wrong[file_id], *known.get(file_id, (None, 0)))


def _flaw(file_id: int, missing: int, name: str | None, loaded: int) -> str:
    rows = counted(loaded - missing, "row")
    if name is None:
        return f"file {file_id}: {rows}, but it is not in the ledger"
    if missing > 0:
        return f"file {file_id} ({name}): {rows} stored, {loaded:,} loaded: was a partition dropped?"
    return f"file {file_id} ({name}): {rows} stored, only {loaded:,} loaded"


def _parts(cursor: Cursor, tables: Tables) -> list[_Part]:
    """Returns the parts of all tables: their days, the newest first, and then the times without a day."""
    # By conditions on the table: whoever may read that may not read a partition by its name.
    days: list[tuple[date, _Part]] = []
    others: list[_Part] = []
    for table in tables.values():
        cursor.execute(
            """
            SELECT to_date(right(relname, 8), 'YYYYMMDD')
            FROM pg_inherits JOIN pg_class ON oid = inhrelid
            WHERE inhparent = %s::regclass AND relname ~ '_[0-9]{8}$'
            """,
            (table.full_name,),
        )
        own = [day for (day,) in cursor]
        time = table.key[1]
        days += [(day, _Part(table, f"{table.name} {day}", within(day_spans([day]), time))) for day in own]
        gaps = list(_gaps(day_spans(own), time))
        for start in range(0, len(gaps), MOST_SPANS):
            condition = " OR ".join(gaps[start : start + MOST_SPANS])
            others.append(_Part(table, f"{table.name} other", condition))
    days.sort(key=lambda pair: pair[0], reverse=True)
    return [part for _, part in days] + others


def _gaps(spans: Sequence[Span], time: str) -> Iterator[str]:
    """Yields conditions for the times between spans, before the first and behind the last."""
    if not spans:
        yield "true"
        return
    yield f"{time} < '{spans[0][0]}'::timestamptz"
    for (_, end), (start, _) in pairwise(spans):
        yield f"{time} >= '{end}'::timestamptz AND {time} < '{start}'::timestamptz"
    yield f"{time} >= '{spans[-1][1]}'::timestamptz"


def _counted(connection: Connection, part: _Part, scope: Scope) -> Iterator[tuple[int, int]]:
    return _streamed(
        connection,
        f"""
        SELECT file_id, count(*)
        FROM {part.table.full_name}
        WHERE file_id >= %s AND ({part.condition})
        GROUP BY file_id
        """,
        scope.first,
    )


def _streamed(connection: Connection, statement: str, *values: object) -> Iterator[tuple[int, int]]:
    with connection.cursor(name="verify") as cursor:
        cursor.itersize = _PAGE
        cursor.execute(statement, values)
        yield from cursor


def _late(cursor: Cursor, part: _Part, scope: Scope) -> Iterator[str]:
    """Yields vehicles of which the part has a newer row than that which is their latest."""
    table, time = part.table, part.table.key[1]
    cursor.execute(
        f"""
        WITH newest AS (
            SELECT vehicle_id, max({time}) AS newest
            FROM {table.full_name}
            WHERE file_id >= %s AND ({part.condition})
            GROUP BY vehicle_id
        )
        SELECT vehicle_id, s.vehicle_id IS NULL
        FROM newest
        LEFT JOIN {table.latest_name} s USING (vehicle_id)
        WHERE s.{time} < newest OR s.vehicle_id IS NULL
        ORDER BY vehicle_id
        """,
        (scope.first,),
    )
    name = table.latest_name.partition(".")[2]
    for vehicle_id, is_missing in cursor:
        missing = f"a history, but no row in {name}"
        yield f"vehicle {vehicle_id}: {missing if is_missing else f'{name} is not the newest of the history'}"
