"""A bucket that a function loads from, and the events that S3 and SQS would send of its objects."""

from typing import Any
from urllib.parse import quote_plus

import zstandard
from msgspec import json

from tests.seaweed import Seaweed
from tests.support import detections, event, query, until

PREFIX = "in/"


class Bucket:
    """A bucket of a test's own."""

    def __init__(self, seaweed: Seaweed) -> None:
        self.client = seaweed.client
        self.name = seaweed.bucket()
        self.settings = {**seaweed.environment, "WATCH_FOLDER": f"s3://{self.name}/{PREFIX}"}

    def put(self, name: str, content: bytes) -> str:
        self.client.put_object(Bucket=self.name, Key=PREFIX + name, Body=content)
        return name

    def all_keys(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def direct(self, *names: str, name_of_event: str = "ObjectCreated:Put") -> dict[str, Any]:
        """An event of S3, as the function gets it without a queue."""
        return {"Records": [self._record(name, name_of_event) for name in names]}

    def queued(self, *names: str) -> dict[str, Any]:
        """An event of SQS with a message for each object, whose id is the object's name."""
        return {"Records": [message(name, self.direct(name)) for name in names]}

    def _record(self, name: str, name_of_event: str) -> dict[str, Any]:
        return {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": "us-east-1",
            "eventTime": "2026-11-28T10:58:48.796Z",
            "eventName": name_of_event,
            "userIdentity": {"principalId": "AWS:EXAMPLE"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "arrivals",
                "bucket": {"name": self.name, "arn": f"arn:aws:s3:::{self.name}"},
                "object": {"key": quote_plus(PREFIX + name, safe="/"), "size": 1, "sequencer": "0"},
            },
        }


def message(id: str, body: object) -> dict[str, Any]:
    """A message of SQS as Lambda gets it."""
    text = body if isinstance(body, str) else json.encode(body).decode()
    return {"messageId": id, "receiptHandle": "-", "body": text, "eventSource": "aws:sqs"}


def returned(*names: str) -> dict[str, Any]:
    """The answer that gives these messages back to the queue."""
    return {"batchItemFailures": [{"itemIdentifier": name} for name in names]}


def vehicles(url: str) -> list[str]:
    rows = query(url, "SELECT vehicle_id FROM mobileye_data.vehicle_status_history ORDER BY 1")
    return [vehicle for (vehicle,) in rows]


def states(url: str) -> dict[str, str]:
    return dict(query(url, "SELECT name, state FROM mobileye_data.ingested_files"))


def in_transaction(url: str) -> int:
    """The number of other sessions that are in a transaction, or wait for a lock."""
    statement = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
          AND backend_type = 'client backend'
    """
    return int(query(url, statement)[0][0])


def bulk(megabytes: int) -> tuple[bytes, int]:
    """A document of that length, compressed, and how many rows it holds."""
    text = detections(*(event(second, vehicle="VEHICLE-NAME") for second in range(3600)))
    head, block, tail = text[: text.index(b"[") + 1], text[text.index(b"[") + 1 : -2], text[-2:]
    copies = max(1, megabytes * 1_000_000 // len(block))
    blocks = (block.replace(b"VEHICLE-NAME", b"%012d" % n) for n in range(copies))
    return zstandard.compress(head + b",".join(blocks) + tail, 1), copies * 3600 * 2


def sessions(url: str) -> list[int]:
    """The other sessions of the database."""
    statement = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return [pid for (pid,) in query(url, statement)]


def terminate_sessions(url: str) -> None:
    for pid in sessions(url):
        query(url, "SELECT pg_terminate_backend(%s)", (pid,))
    until(lambda: not sessions(url), 10, "they are gone")
