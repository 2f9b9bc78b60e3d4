"""Fills databases with what a fleet did in sixty days, made in the server.

Ours and that of the naive program get the same rows: ours in the order in which the loader sends them, each
25,000 sorted by their keys, the other one in the order of their times.
"""

import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta

from benchmarks.server import execute
from db import schema
from db.chunk import CHUNK_ROWS
from db.connection import Database
from tests.chaos import naive

DAYS, VEHICLES = 60, 5000
FIRST = datetime(2026, 6, 1, tzinfo=UTC)

#: Detections of a day, three for each event; every kind of vehicle, type and value by a hash of its number.
DETECTIONS = """
    SELECT md5((abs(hashint8extended(event, 1)) % {vehicles})::text) AS vehicle_id,
           timestamptz '{day} 00:00:00+00' + event * interval '{step} microseconds' AS detection_time,
           (ARRAY['cars', 'obstacles', 'pedestrians', 'signs', 'trucks'])
               [1 + (part + abs(hashint8extended(event, 2))) % 5] AS object_type,
           (abs(hashint8extended(event * 3 + part, 3)) % 12)::integer AS object_value,
           event * 3 + part AS number
    FROM generate_series(0, {events} - 1) event, generate_series(0, 2) part
"""

#: A report for each ten detections; one in a thousand is an accident.
REPORTS = """
    SELECT md5((abs(hashint8extended(number, 4)) % {vehicles})::text) AS vehicle_id,
           timestamptz '{day} 00:00:00+00' + number * interval '{report_step} microseconds' AS report_time,
           CASE WHEN abs(hashint8extended(number, 5)) % 1000 = 0 THEN 'accident'
                WHEN abs(hashint8extended(number, 6)) % 10 < 6 THEN 'driving' ELSE 'parking' END AS status,
           number
    FROM generate_series(0, {reports} - 1) number
"""

LATEST = """
    SELECT DISTINCT ON (vehicle_id) {columns}
    FROM mobileye_data.vehicle_status_history
    ORDER BY vehicle_id, report_time DESC
"""


#: What fills a table, and the table with its columns.
FILLED = (
    (DETECTIONS, "objects_detection_events", "vehicle_id, detection_time, object_type, object_value"),
    (REPORTS, "vehicle_status_history", "vehicle_id, report_time, status"),
)


def fill(url: str, rows: int) -> None:
    """Fills our tables, a day at a time."""
    with closing(Database(url).connect()) as connection:
        schema.apply(connection)
    order = f'ORDER BY number / {CHUNK_ROWS}, vehicle_id COLLATE "C", 2'
    for day in range(DAYS):
        date, values = _day(day, rows)
        for rows_of_day, table, columns in FILLED:
            execute(url, f"SELECT mobileye_data.add_partition('{table}', '{date}')")
            made = f"SELECT {columns}, NULL::jsonb, 1 FROM ({rows_of_day.format(**values)}) made {order}"
            execute(url, f"INSERT INTO mobileye_data.{table} {made}")
        execute(url, f"SELECT mobileye_data.recount_hours('{date}')")
        print(f"ours: day {day + 1} of {DAYS}", file=sys.stderr)
    _finish(url, "vehicle_id, report_time, status, NULL::jsonb, 1")


def fill_naive(url: str, rows: int) -> None:
    """Fills the tables of the naive program."""
    execute(url, naive.TABLES)
    for day in range(DAYS):
        _, values = _day(day, rows)
        for rows_of_day, table, columns in FILLED:
            made = f"SELECT {columns} FROM ({rows_of_day.format(**values)}) made"
            execute(url, f"INSERT INTO mobileye_data.{table} {made}")
        print(f"naive: day {day + 1} of {DAYS}", file=sys.stderr)
    _finish(url, "vehicle_id, report_time, status")


def _finish(url: str, columns: str) -> None:
    execute(url, f"INSERT INTO mobileye_data.vehicle_status {LATEST.format(columns=columns)}")
    execute(url, "VACUUM ANALYZE")


def _day(number: int, rows: int) -> tuple[str, dict[str, object]]:
    """Returns a day and the values that make its rows."""
    date = f"{FIRST + timedelta(days=number):%Y-%m-%d}"
    events, reports = rows // DAYS // 3, rows // DAYS // 10
    steps = {"step": 86_400_000_000 // events, "report_step": 86_400_000_000 // reports}
    return date, {"day": date, "vehicles": VEHICLES, "events": events, "reports": reports, **steps}
