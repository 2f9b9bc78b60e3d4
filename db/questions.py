"""The questions that people ask of the tables, each answered with a pandas DataFrame."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from db.connection import translate_errors
from processing.errors import Misconfigured

if TYPE_CHECKING:
    from pandas import DataFrame

#: Rows that are values of Python at one time; columns of a DataFrame take a tenth of that.
_CHUNK_ROWS = 50_000

_TIME, _TEXT, _CATEGORY = "time", "str", "category"
_COUNTS = {"detections": "int64", "objects": "int64"}

_TIMELINE = {"at": _TIME, "what": _CATEGORY, "value": "Int32", "file_id": "int64"}
_LATEST = {
    "vehicle_id": _TEXT,
    "report_time": _TIME,
    "status": _CATEGORY,
    "extra": _TEXT,
    "file_id": "int64",
}
_BY_STATUS = {"status": _CATEGORY, "vehicles": "int64", "latest_report": _TIME}
_BY_HOUR = {"hour": _TIME, "object_type": _CATEGORY, **_COUNTS}
_ACCIDENTS = {
    "vehicle_id": _TEXT,
    "report_time": _TIME,
    "object_type": _CATEGORY,
    "detections": "Int64",
    "objects": "Int64",
    "last_seen": _TIME,
}
_BUSIEST = {"vehicle_id": _TEXT, **_COUNTS}
_FILES = {
    "day": _TIME,
    "kind": _CATEGORY,
    "state": _CATEGORY,
    "files": "int64",
    "bytes": "int64",
    "rows_read": "int64",
    "rows_inserted": "int64",
    "rows_duplicate": "int64",
    "rows_rejected": "int64",
}
_REJECTS = {"reason": _CATEGORY, "kind": _CATEGORY, "records": "int64", "open": "int64", "latest": _TIME}


def vehicle_timeline(
    connection: Connection, vehicle_id: str, since: datetime, until: datetime
) -> "DataFrame":
    """Returns detections and status reports of a vehicle, by time: at, what, value, file_id.

    Here and below, a range is from `since` to before `until`. A report has no value.
    """
    statement = "SELECT at, what, value, file_id FROM mobileye_data.vehicle_timeline(%s, %s, %s)"
    return _frame(connection, _TIMELINE, statement, vehicle_id, since, until)


def latest_status(connection: Connection, vehicle_id: str) -> "DataFrame":
    """Returns one row or none: vehicle_id, report_time, status, extra, file_id; extra is the text of JSON."""
    statement = """
        SELECT vehicle_id, report_time, status, extra::text, file_id
        FROM mobileye_data.vehicle_status
        WHERE vehicle_id = %s
        """
    return _frame(connection, _LATEST, statement, vehicle_id)


def vehicles_by_status(connection: Connection) -> "DataFrame":
    """Returns how many vehicles are in each status now: status, vehicles, latest_report."""
    statement = "SELECT status, vehicles, latest_report FROM mobileye_data.vehicles_by_status ORDER BY status"
    return _frame(connection, _BY_STATUS, statement)


def detections_by_hour(
    connection: Connection, since: datetime, until: datetime, vehicle_id: str | None = None
) -> "DataFrame":
    """Returns counts of the hours that begin in the range: hour, object_type, detections, objects."""
    statement = "SELECT * FROM mobileye_data.detections_by_hour(%s, %s, %s)"
    return _frame(connection, _BY_HOUR, statement, since, until, vehicle_id)


def accidents(connection: Connection, since: datetime, until: datetime, minutes: int = 10) -> "DataFrame":
    """Returns reports of an accident, each with what the vehicle detected in the minutes before.

    A row for each type: vehicle_id, report_time, object_type, detections, objects, last_seen. A vehicle that
    detected nothing has one row without a type.
    """
    statement = "SELECT * FROM mobileye_data.accidents(%s, %s, %s)"
    return _frame(connection, _ACCIDENTS, statement, since, until, minutes)


def busiest_vehicles(
    connection: Connection, since: datetime, until: datetime, limit: int = 10
) -> "DataFrame":
    """Returns the vehicles with the most detections, the busiest first: vehicle_id, detections, objects."""
    statement = "SELECT * FROM mobileye_data.busiest_vehicles(%s, %s, %s)"
    return _frame(connection, _BUSIEST, statement, since, until, limit)


def files_by_day(connection: Connection, since: datetime, until: datetime) -> "DataFrame":
    """Returns files and records by the day on which they were finished.

    The columns: day, kind, state, files, bytes, rows_read, rows_inserted, rows_duplicate, rows_rejected.
    """
    statement = """
        SELECT day::timestamp AT TIME ZONE 'UTC', kind, state, files, bytes,
               rows_read, rows_inserted, rows_duplicate, rows_rejected
        FROM mobileye_data.files_by_day(%s, %s)
        """
    return _frame(connection, _FILES, statement, since, until)


def rejects_by_reason(connection: Connection) -> "DataFrame":
    """Returns rejected records, all and open ones: reason, kind, records, open, latest."""
    statement = """
        SELECT reason, kind, records, open, latest
        FROM mobileye_data.rejects_by_reason
        ORDER BY reason, kind
        """
    return _frame(connection, _REJECTS, statement)


def _frame(connection: Connection, types: Mapping[str, str], statement: str, *values: object) -> "DataFrame":
    """Returns the rows of a query, read in a transaction of its own, a chunk at a time."""
    pandas = _pandas()
    is_kept = connection.autocommit  # else there must be a transaction
    with translate_errors(), connection, connection.cursor("question", withhold=is_kept) as cursor:
        cursor.execute(statement, values)
        chunks = [_columns(pandas, types, rows) for rows in _chunks(cursor)]
    return pandas.DataFrame(
        {name: _joined(pandas, type_, [chunk[name] for chunk in chunks]) for name, type_ in types.items()}
    )


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise Misconfigured("pandas is missing: pip install -r requirements/lake.txt") from None
    return pandas


def _chunks(cursor: Cursor) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Yields the rows of a query; the last chunk may be empty, and there is always one."""
    while True:
        rows = cursor.fetchmany(_CHUNK_ROWS)
        yield rows
        if len(rows) < _CHUNK_ROWS:
            return


def _columns(pandas: Any, types: Mapping[str, str], rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    values = zip(*rows, strict=True) if rows else [()] * len(types)
    return {
        name: _column(pandas, type_, list(column))
        for (name, type_), column in zip(types.items(), values, strict=True)
    }


def _column(pandas: Any, type_: str, values: list[Any]) -> Any:
    if type_ == _TIME:
        # In microseconds, as stored: nanoseconds would end in 2262.
        return pandas.Series(pandas.to_datetime(values, utc=True)).dt.as_unit("us")
    if type_ == _CATEGORY:  # by way of texts: without a text in them, the categories would be of another type
        return pandas.Series(values, dtype=_TEXT).astype(_CATEGORY)
    return pandas.Series(values, dtype=type_)


def _joined(pandas: Any, type_: str, parts: list[Any]) -> Any:
    if type_ == _CATEGORY:
        from pandas.api.types import union_categoricals

        return pandas.Series(union_categoricals(parts, sort_categories=True))
    return pandas.concat(parts, ignore_index=True)
