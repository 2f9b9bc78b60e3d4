"""Loads with pandas: json_normalize, then to_sql(method="multi")."""

import json
from pathlib import Path

import pandas
import sqlalchemy

LACKS = "no dedupe, no latest status, no ledger, whole file in memory"


def load(folder: Path, url: str) -> None:
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
    for path in sorted(folder.iterdir()):
        document = json.loads(path.read_text())
        if "vehicle_status" in document:
            table, time = "vehicle_status_history", "report_time"
            frame = pandas.json_normalize(document["vehicle_status"])
        else:
            table, time = "objects_detection_events", "detection_time"
            events = document["objects_detection_events"]
            frame = pandas.json_normalize(events, record_path="detections", meta=["vehicle_id", time])
        frame[time] = pandas.to_datetime(frame[time])
        frame["file_id"] = 0
        options = {"schema": "mobileye_data", "if_exists": "append", "index": False}
        frame.to_sql(table, engine, method="multi", chunksize=1000, **options)
        path.unlink()
