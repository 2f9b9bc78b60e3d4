"""Tests for messages that are parsed together: each is as if it were alone."""

from typing import Any

import pytest
from msgspec import json

from processing.detection_events import KIND as DETECTIONS
from processing.message_batch import MessageBatch, Records
from processing.stream import Message, Placed, TopicPartition
from processing.vehicle_status import KIND as STATUSES
from tests.support import event, report

EVENTS = TopicPartition("events", "id", 3)
STATUS = TopicPartition("status", "id", 3)


def records(place: TopicPartition, *values: Any) -> Records:
    """Returns what becomes of values that come at once."""
    batch = MessageBatch({"events": DETECTIONS, "status": STATUSES}, 10**9)
    contents = [value if isinstance(value, bytes) else json.encode(value) for value in values]
    batch.add([Message(place, offset, content) for offset, content in enumerate(contents)], 0)
    batch.end()
    (run,) = batch.runs
    assert isinstance(run, Records)
    assert sum(parsed.count for parsed in run.parsed) == len(run.messages) == len(values)
    return run


def outcome(run: Records) -> tuple[int, list[int]]:
    """Returns the number of records, and the offsets of the messages that were rejected."""
    rejected = [one.position for parsed in run.parsed for one in parsed.rejected]
    return sum(len(parsed.records) for parsed in run.parsed), [
        run.messages.place(at).offset for at in rejected
    ]


ONE = json.encode(event(0, ("cars", 1), ("trucks", 2)))
CUT = ONE.index(b",{")


@pytest.mark.parametrize(
    "values",
    [
        [ONE[:CUT], ONE[CUT + 1 :], b"%b,%b" % (ONE, ONE)],
        [b"%b,%b" % (ONE, ONE[:CUT]), ONE[CUT + 1 :]],
        [ONE, b"%b,%b" % (ONE[:CUT], ONE[CUT + 1 :]) + b"]", b"[" + ONE],
    ],
)
def test_no_message_completes_another(values: list[bytes]) -> None:
    """Together they are as many elements as messages, and each of these is as documented."""
    alone = [outcome(records(EVENTS, value)) for value in values]
    count, rejected = outcome(records(EVENTS, *values))
    assert count == sum(one for one, _ in alone)
    assert rejected == [offset for offset, (_, found) in enumerate(alone) if found]
    assert rejected


def test_a_repeated_key_is_noticed_among_others() -> None:
    twice = json.encode(report(1)).replace(b'"status"', b'"status":"parking","status"')
    assert outcome(records(STATUS, report(0), twice, report(2))) == (2, [1])


@pytest.mark.parametrize("blank", [b" ", b"\r\n"])
def test_blanks_around_a_value_are_no_matter(blank: bytes) -> None:
    values = [blank + json.encode(report(second)) + blank for second in range(3)]
    assert outcome(records(STATUS, *values)) == (3, [])


def test_bad_and_odd_messages_leave_their_neighbours_alone() -> None:
    values: list[Any] = [report(second) for second in range(600)]
    values[100] = b"{"
    values[300] = report(300, note="of nobody")
    values[599] = b"null"
    assert outcome(records(STATUS, *values)) == (598, [100, 599])


def test_each_record_is_found_in_its_message() -> None:
    """The database may refuse any record later."""
    counts = [0, 2, 0, 0, 1, 3, 0]
    kinds = ("cars", "trucks", "signs")
    values = [
        {**event(second), "detections": [{"object_type": kind, "object_value": 1} for kind in kinds[:count]]}
        for second, count in enumerate(counts)
    ]
    run = records(EVENTS, *values)
    found = [run.messages.place(position) for position in range(sum(counts))]
    offsets = [offset for offset, count in enumerate(counts) for _ in range(count)]
    assert [place.offset for place in found] == offsets
    assert found[:2] == [Placed(3, 1, json.encode(values[1])), Placed(3, 1, None)]
