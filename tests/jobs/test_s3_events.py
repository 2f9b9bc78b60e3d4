"""The events of S3 and of SQS as they are documented, and whatever else may come."""

from typing import Any

import pytest

from jobs.s3_events import Arrival, Call, read
from tests.jobs.support import message


def record(key: str, event: str = "ObjectCreated:Put") -> dict[str, Any]:
    return {
        "eventSource": "aws:s3",
        "eventName": event,
        "s3": {"bucket": {"name": "b"}, "object": {"key": key, "size": 1}},
    }


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("in/a.json", "in/a.json"),
        ("in/a+b%2Bc%252B.json", "in/a b+c%2B.json"),
        ("u/%E6%97%A5%E6%9C%AC+%C3%A9.json", "u/日本 é.json"),
        ("x//y%0A.json", "x//y\n.json"),
    ],
)
def test_a_key_is_read_as_s3_writes_it(key: str, meant: str) -> None:
    assert read({"Records": [record(key)]}) == Call([Arrival("b", meant)], [], False)


def test_a_message_of_a_queue_may_name_several_objects_and_each_bears_its_id() -> None:
    event = {
        "Records": [
            message("1", {"Records": [record("a"), record("b")]}),
            message("2", {"Records": [record("c", "ObjectRestore:Completed")]}),
        ]
    }
    arrivals = [Arrival("b", "a", "1"), Arrival("b", "b", "1"), Arrival("b", "c", "2")]
    assert read(event) == Call(arrivals, [], True)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (None, "the event has no records"),
        ([], "the event has no records"),
        ({}, "the event has no records"),
        ({"Records": []}, "the event has no records"),
        ({"Records": "x"}, "the event has no records"),
        ({"Event": "s3:TestEvent", "Bucket": "b"}, "it is the test event that S3 sends"),
        ({"detail-type": "Object Created", "detail": {}}, "the event has no records: Object Created"),
        ({"Records": [None]}, "a record is none of S3"),
        ({"Records": [{"eventSource": "aws:kinesis"}]}, "a record is none of S3"),
        ({"Records": [record("a") | {"s3": {"object": {"key": 1}}}]}, "a record is none of S3"),
        ({"Records": [record("a", "ObjectRemoved:Delete")]}, "ObjectRemoved:Delete is no arrival"),
        ({"Records": [message("1", "no JSON")]}, "a message of the queue is no notification of S3"),
        ({"Records": [message("1", "[]")]}, "the event has no records"),
        ({"Records": [message("1", {"Event": "s3:TestEvent"})]}, "it is the test event that S3 sends"),
        ({"Records": [message("1", {"Type": "Notification"})]}, "the event has no records: Notification"),
        ({"Records": [{"eventSource": "aws:sqs"}]}, "a message of the queue is no notification of S3"),
    ],
)
def test_what_names_no_arrival_is_passed_over_with_its_reason(event: object, reason: str) -> None:
    call = read(event)
    assert call.arrivals == [] and len(call.passed_over) == 1 and call.passed_over[0].startswith(reason)


def test_what_is_passed_over_does_not_touch_the_others() -> None:
    event = {"Records": [message("1", "{"), message("2", {"Records": [record("a"), None]})]}
    call = read(event)
    assert call.arrivals == [Arrival("b", "a", "2")] and len(call.passed_over) == 2 and call.is_from_queue
