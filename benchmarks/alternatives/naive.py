"""Loads as a naive program does: json.load, a connection for each file, an INSERT for each row."""

import json
from pathlib import Path

import psycopg2

LACKS = "no ledger, whole file in memory"


def load(folder: Path, url: str) -> None:
    for path in sorted(folder.iterdir()):
        document = json.loads(path.read_text())
        connection = psycopg2.connect(url)
        with connection, connection.cursor() as cursor:
            for event in document.get("objects_detection_events", ()):
                for detection in event["detections"]:
                    cursor.execute(
                        """
                        INSERT INTO mobileye_data.objects_detection_events
                            (vehicle_id, detection_time, object_type, object_value, file_id)
                        VALUES (%s, %s, %s, %s, 0)
                        ON CONFLICT DO NOTHING
                        """,
                        (
                            event["vehicle_id"],
                            event["detection_time"],
                            detection["object_type"],
                            detection["object_value"],
                        ),
                    )
            for report in document.get("vehicle_status", ()):
                row = (report["vehicle_id"], report["report_time"], report["status"])
                cursor.execute(
                    """
                    INSERT INTO mobileye_data.vehicle_status_history
                        (vehicle_id, report_time, status, file_id)
                    VALUES (%s, %s, %s, 0)
                    ON CONFLICT DO NOTHING
                    """,
                    row,
                )
                cursor.execute(
                    """
                    INSERT INTO mobileye_data.vehicle_status AS old
                        (vehicle_id, report_time, status, file_id)
                    VALUES (%s, %s, %s, 0)
                    ON CONFLICT (vehicle_id) DO UPDATE
                    SET report_time = excluded.report_time, status = excluded.status
                    WHERE old.report_time < excluded.report_time
                    """,
                    row,
                )
        connection.close()
        path.unlink()
