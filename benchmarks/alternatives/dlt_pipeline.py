"""Loads with dlt: one resource for each table, into dlt's own tables, which have two more columns."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt

LACKS = "own tables without keys, no dedupe, no latest status, whole file in memory"


def load(folder: Path, url: str) -> None:
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    pipeline = dlt.pipeline(
        "benchmark",
        destination=dlt.destinations.postgres(url),
        dataset_name="dlt",
        pipelines_dir=f"{folder}.dlt",
    )
    pipeline.run(
        [
            dlt.resource(_detections(folder), name="objects_detection_events", write_disposition="append"),
            dlt.resource(_reports(folder), name="vehicle_status_history", write_disposition="append"),
        ]
    )
    for path in folder.iterdir():
        path.unlink()


def _detections(folder: Path) -> Iterator[list[dict[str, Any]]]:
    for path in sorted(folder.glob("objects_*.json")):
        for event in json.loads(path.read_text())["objects_detection_events"]:
            shared = {"vehicle_id": event["vehicle_id"], "detection_time": event["detection_time"]}
            yield [{**shared, **detection} for detection in event["detections"]]


def _reports(folder: Path) -> Iterator[list[dict[str, Any]]]:
    for path in sorted(folder.glob("vehicles_*.json")):
        yield json.loads(path.read_text())["vehicle_status"]
