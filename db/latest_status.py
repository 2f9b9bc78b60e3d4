"""The latest status of each vehicle, gathered while reports are written."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import json
from psycopg2.extensions import cursor as Cursor

from db.copy_format import in_utc
from db.days import Span, spans_of, within
from processing.records import Record, StatusReport

#: Vehicles held in memory, and characters of their names.
_MOST = 50_000
_MOST_CHARACTERS = 4_000_000


class LatestStatus:
    """The time of the latest report of each vehicle in one transaction.

    Their values, which may be large, stay where they are: in the history, whose rows are there by then.
    """

    def __init__(self) -> None:
        self._times: dict[str, datetime] = {}
        self._characters = 0

    def take(self, records: Sequence[Record]) -> None:
        """Reports that are in the history, by this transaction or another."""
        times = self._times
        for record in records:
            if not isinstance(record, StatusReport):
                return
            known = times.get(record.vehicle_id)
            if known is None:
                self._characters += len(record.vehicle_id)
                times[record.vehicle_id] = record.report_time
            elif known < record.report_time:
                times[record.vehicle_id] = record.report_time

    def is_full(self) -> bool:
        return len(self._times) >= _MOST or self._characters >= _MOST_CHARACTERS

    def flush(self, cursor: Cursor) -> None:
        """Brings the table up to date; an older report never overwrites a newer one.

        All in one parameter: to write out thousands of rows of values would take several times as long.
        Vehicles in order, and late in the transaction: two processes then lock them in the same
        order, and for a short time.
        """
        if not self._times:
            return
        times = {vehicle_id: in_utc(time) for vehicle_id, time in self._times.items()}
        listed = json.encode([{"v": vehicle_id, "t": time} for vehicle_id, time in times.items()])
        cursor.execute(_statement(spans_of(times.values())), (listed.decode(),))
        self._times.clear()
        self._characters = 0


def _statement(spans: Sequence[Span]) -> str:
    return f"""
        INSERT INTO mobileye_data.vehicle_status AS old
            (vehicle_id, report_time, status, extra, file_id)
        SELECT stored.*
        FROM (SELECT * FROM json_to_recordset(%s) AS listed (v text, t timestamptz)
              ORDER BY v COLLATE "C") new
        CROSS JOIN LATERAL (
            SELECT vehicle_id, report_time, status, extra, file_id
            FROM mobileye_data.vehicle_status_history
            WHERE vehicle_id = new.v AND report_time = new.t AND ({within(spans, "report_time")})
            LIMIT 1
        ) stored
        ON CONFLICT (vehicle_id) DO UPDATE SET
            report_time = excluded.report_time,
            status = excluded.status,
            extra = excluded.extra,
            file_id = excluded.file_id
        WHERE old.report_time < excluded.report_time
        """
