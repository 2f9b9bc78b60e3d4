"""The latest status of each vehicle, gathered while reports are written."""

from collections.abc import Sequence

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from db.tables import Row
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

        Vehicles in order, and late in the transaction: two processes then lock them in the same
        order, and for a short time.
        """
        execute_values(
            cursor,
            """
            INSERT INTO mobileye_data.vehicle_status AS old
                (vehicle_id, report_time, status, extra, file_id)
            VALUES %s
            ON CONFLICT (vehicle_id) DO UPDATE SET
                report_time = excluded.report_time,
                status = excluded.status,
                extra = excluded.extra,
                file_id = excluded.file_id
            WHERE old.report_time < excluded.report_time
            """,
            [_row(*self._reports[vehicle_id]) for vehicle_id in sorted(self._reports)],
            template="(%s, %s, %s, %s::jsonb, %s)",
            page_size=1000,
        )
        self._reports.clear()


def _row(report: StatusReport, file_id: int) -> Row:
    return report.vehicle_id, report.report_time, report.status, report.extra, file_id
