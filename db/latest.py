"""The latest status of each vehicle, gathered while reports are written."""

from collections.abc import Sequence
from typing import Any

from msgspec import json
from psycopg2.extensions import cursor as Cursor

from db.rows import in_utc
from processing.records import Record, StatusReport

#: Vehicles held in memory.
_MOST = 50_000


class Latest:
    """The latest report of each vehicle in one transaction."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[StatusReport, int]] = {}

    def take(self, records: Sequence[Record], file_id: int) -> None:
        """Of reports with the same time the first counts, as it does in the history."""
        reports = self._reports
        for record in records:
            if not isinstance(record, StatusReport):
                return
            known = reports.get(record.vehicle_id)
            if known is None or known[0].report_time < record.report_time:
                reports[record.vehicle_id] = record, file_id

    def is_full(self) -> bool:
        return len(self._reports) >= _MOST

    def flush(self, cursor: Cursor) -> None:
        """Brings the table up to date; an older report never overwrites a newer one.

        All in one parameter: to write out thousands of rows of values would take several times as long.
        Vehicles in order, and late in the transaction: two processes then lock them in the same
        order, and for a short time.
        """
        if not self._reports:
            return
        cursor.execute(
            """
            INSERT INTO mobileye_data.vehicle_status AS old
                (vehicle_id, report_time, status, extra, file_id)
            SELECT vehicle_id, report_time, status, extra::jsonb, file_id
            FROM json_to_recordset(%s) AS
                new (vehicle_id text, report_time timestamptz, status text, extra text, file_id bigint)
            ORDER BY vehicle_id COLLATE "C"
            ON CONFLICT (vehicle_id) DO UPDATE SET
                report_time = excluded.report_time,
                status = excluded.status,
                extra = excluded.extra,
                file_id = excluded.file_id
            WHERE old.report_time < excluded.report_time
            """,
            (json.encode([_fields(*known) for known in self._reports.values()]).decode(),),
        )
        self._reports.clear()


def _fields(report: StatusReport, file_id: int) -> dict[str, Any]:
    return {
        "vehicle_id": report.vehicle_id,
        "report_time": in_utc(report.report_time),
        "status": report.status,
        "extra": report.extra,
        "file_id": file_id,
    }
