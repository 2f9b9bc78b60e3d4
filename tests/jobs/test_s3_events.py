"""The events of S3 and of SQS as they are documented, and whatever else may come."""

from typing import Any

import pytest

from jobs.s3_events import Call, Item, read
from sources.notifications import Arrival
from tests.jobs.support import message


def record(key: str, event: str = "ObjectCreated:Put") -> dict[str, Any]:
    return {
        "eventSource": "aws:s3",
        "eventName": event,
        "s3": {"bucket": {"name": "b"}, "object": {"key": key, "size": 7}},
    }


def test_an_event_of_s3_is_read_as_its_notifications_are() -> None:
    event = {"Records": [record("in/a+b%2Bc%252B.json"), record("in/b.json", "ObjectRemoved:Delete")]}
    assert read(event) == Call([Item(Arrival("b", "in/a b+c%2B.json", 7))], [], False)


def test_a_message_of_a_queue_may_name_several_objects_and_each_bears_its_id() -> None:
    event = {
        "Records": [
            message("1", {"Records": [record("a"), record("b")]}),
            message("2", {"Records": [record("c", "ObjectRestore:Completed")]}),
        ]
    }
    items = [Item(Arrival("b", key, 7), id) for key, id in (("a", "1"), ("b", "1"), ("c", "2"))]
    assert read(event) == Call(items, [], True)


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        {},
        {"Records": []},
        {"Records": "x"},
        {"Event": "s3:TestEvent", "Bucket": "b"},
        {"detail-type": "Scheduled Event", "detail": {}},
        {"Records": [None]},
        {"Records": [{"eventSource": "aws:kinesis"}]},
        {"Records": [{"eventSource": "aws:sqs"}]},
        {"Records": [record("a") | {"s3": {"object": {"key": 1}}}]},
        {"Records": [record("a", "ObjectRemoved:Delete")]},
        {"Records": [message("1", "no JSON")]},
        {"Records": [message("1", "[]")]},
        {"Records": [message("1", {"Event": "s3:TestEvent"})]},
        {"Records": [message("1", {"Type": "Notification"})]},
        {"Records": [record("\ud800")]},
        {"Records": [message("1", "x") | {"body": "\ud800"}]},
        {"Records": [], "number": 10**400},
    ],
)
def test_what_names_no_arrival_is_passed_over(event: object) -> None:
    call = read(event)
    assert call.items == [] and len(call.passed_over) == 1


def test_what_is_passed_over_does_not_touch_the_others() -> None:
    event = {"Records": [message("1", "{"), message("2", {"Records": [record("a")]})]}
    assert read(event) == Call([Item(Arrival("b", "a", 7), "2")], ["{"], True)
