"""Notifications of a bucket in every envelope, and whatever else may lie in a queue."""

from typing import Any

import pytest
from msgspec import json

from sources.notifications import Arrival, arrivals


def record(key: str, event: str = "ObjectCreated:Put", bucket: str = "bucket") -> dict[str, Any]:
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": event,
        "s3": {
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": key, "size": 3},
        },
    }


def direct(*records: dict[str, Any]) -> str:
    return json.encode({"Records": records}).decode()


def by_sns(text: str) -> str:
    return json.encode({"Type": "Notification", "MessageId": "1", "Message": text}).decode()


def by_eventbridge(key: str, event: str = "Object Created", bucket: str = "bucket") -> str:
    detail = {"version": "0", "bucket": {"name": bucket}, "object": {"key": key, "size": 3}}
    return json.encode({"version": "0", "detail-type": event, "source": "aws.s3", "detail": detail}).decode()


@pytest.mark.parametrize(
    ("encoded", "key"),
    [
        ("in/x.json", "in/x.json"),
        ("in/a+b%2Bc%252B.json", "in/a b+c%2B.json"),
        ("u/%E6%97%A5%E6%9C%AC+%C3%A9.json", "u/日本 é.json"),
        ("line%0Abreak.json", "line\nbreak.json"),
    ],
)
def test_a1_keys_of_s3_are_decoded_and_those_of_eventbridge_are_not(encoded: str, key: str) -> None:
    expected = [Arrival("bucket", key, 3)]
    assert arrivals(direct(record(encoded))) == expected
    assert arrivals(by_sns(direct(record(encoded)))) == expected
    assert arrivals(by_eventbridge(key)) == expected


@pytest.mark.parametrize("event", ["ObjectCreated:CompleteMultipartUpload", "ObjectRestore:Completed"])
def test_each_way_to_arrive_counts(event: str) -> None:
    assert arrivals(direct(record("a", event), record("b", event))) == [
        Arrival("bucket", "a", 3),
        Arrival("bucket", "b", 3),
    ]


def test_an_odd_record_says_nothing_about_the_others() -> None:
    odd = record("odd")
    odd["s3"]["object"]["size"] = None
    assert arrivals(direct(odd, record("a"), {"eventName": 5}, record("b"))) == [
        Arrival("bucket", "a", 3),
        Arrival("bucket", "b", 3),
    ]


def test_events_of_other_servers_are_known_by_their_longer_name() -> None:
    assert arrivals(direct(record("a", "s3:ObjectCreated:Put"))) == [Arrival("bucket", "a", 3)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\ud800",
        "garbage",
        "[]",
        "null",
        "{}",
        '{"Records": 5}',
        '{"Records": [{}]}',
        '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {}}}]}',
        '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "bucket"}',
        '{"Type": "SubscriptionConfirmation", "Message": "You have chosen to subscribe"}',
        '{"Message": ' * 1000,
        direct(record("a", "ObjectRemoved:Delete")),
        by_eventbridge("a", "Object Deleted"),
        by_sns(by_sns("garbage")),
    ],
)
def test_a13_whatever_else_lies_in_the_queue_says_nothing(text: str) -> None:
    assert arrivals(text) == []
