"""The naive program as a daemon: json.load, a connection for each file, an INSERT for each row, then delete.

This version is more careful than usual: it scans instead of waiting for events, writes a file's rows in one
transaction, and moves a file that it can't load aside instead of crashing. Its tables have the same columns
as ours, but no keys.
"""

import json
import os
import sys
import time
from pathlib import Path

import psycopg2

TABLES = """
CREATE SCHEMA IF NOT EXISTS mobileye_data;
CREATE TABLE IF NOT EXISTS mobileye_data.objects_detection_events
    (vehicle_id text, detection_time timestamptz, object_type text, object_value integer);
CREATE TABLE IF NOT EXISTS mobileye_data.vehicle_status_history
    (vehicle_id text, report_time timestamptz, status text);
CREATE TABLE IF NOT EXISTS mobileye_data.vehicle_status
    (vehicle_id text PRIMARY KEY, report_time timestamptz, status text);
"""
_LATEST = """
INSERT INTO mobileye_data.vehicle_status VALUES (%s, %s, %s)
ON CONFLICT (vehicle_id) DO UPDATE SET report_time = excluded.report_time, status = excluded.status
"""
_PAUSE = 0.1


def main() -> None:
    folder, url = Path("incoming"), os.environ["DATABASE_URL"]
    (folder / "failed").mkdir(parents=True, exist_ok=True)
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(TABLES)
    sys.stderr.write("naive program watching incoming\n")
    while True:
        for path in sorted(folder.glob("*.json")):
            try:
                load(path, url)
                path.unlink()
            except Exception as error:  # noqa: BLE001  # as such programs do
                sys.stderr.write(f"{path.name}: {error}\n")
                path.rename(folder / "failed" / path.name)
        time.sleep(_PAUSE)


def load(path: Path, url: str) -> None:
    document = json.loads(path.read_text())
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        for event in document.get("objects_detection_events", ()):
            for detection in event["detections"]:
                row = (event["vehicle_id"], event["detection_time"], *detection.values())
                statement = "INSERT INTO mobileye_data.objects_detection_events VALUES (%s, %s, %s, %s)"
                cursor.execute(statement, row)
        for report in document.get("vehicle_status", ()):
            row = (report["vehicle_id"], report["report_time"], report["status"])
            cursor.execute("INSERT INTO mobileye_data.vehicle_status_history VALUES (%s, %s, %s)", row)
            cursor.execute(_LATEST, row)
    connection.close()


if __name__ == "__main__":
    main()
