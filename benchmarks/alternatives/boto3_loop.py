"""Loads a bucket as a careful script does: list, get, insert, commit, delete.

python -m benchmarks.alternatives.boto3_loop BUCKET PREFIX URL OBJECTS prints the seconds, without imports.
With OBJECTS 1 it commits and deletes each object by itself; with more, so many share a COMMIT and a delete.
"""

import json
import sys
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import boto3
import psycopg2
from psycopg2.extras import execute_values

LACKS = "no ledger, no latest status; an object that was replaced meanwhile is deleted unread"

_DETECTIONS = """
    INSERT INTO mobileye_data.objects_detection_events
        (vehicle_id, detection_time, object_type, object_value, file_id)
    VALUES %s ON CONFLICT DO NOTHING
"""
_REPORTS = """
    INSERT INTO mobileye_data.vehicle_status_history (vehicle_id, report_time, status, file_id)
    VALUES %s ON CONFLICT DO NOTHING
"""


def load(bucket: str, prefix: str, url: str, objects: int) -> None:
    client = boto3.client("s3")
    connection = psycopg2.connect(url)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    found = (entry["Key"] for page in pages for entry in page.get("Contents", []))
    keys = (key for key in found if key.endswith(".json"))
    while group := list(islice(keys, objects)):
        documents = [json.loads(client.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in group]
        with connection, connection.cursor() as cursor:
            _insert(cursor, _DETECTIONS, [row for document in documents for row in _detections(document)])
            _insert(cursor, _REPORTS, [row for document in documents for row in _reports(document)])
        if objects == 1:
            client.delete_object(Bucket=bucket, Key=group[0])
        else:
            client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in group]})
    connection.close()


def _insert(cursor: Any, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        execute_values(cursor, statement, rows, page_size=1000)


def _detections(document: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (event["vehicle_id"], event["detection_time"], found["object_type"], found["object_value"], 0)
        for event in document.get("objects_detection_events", ())
        for found in event["detections"]
    ]


def _reports(document: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (report["vehicle_id"], report["report_time"], report["status"], 0)
        for report in document.get("vehicle_status", ())
    ]


if __name__ == "__main__":
    started = time.perf_counter()
    load(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
    sys.stdout.write(f"\n{time.perf_counter() - started}\n")
