"""What becomes of parsed elements: messages that hold them as they stood, and rejects."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from processing.detection_events import KIND as EVENTS
from processing.document import Document
from processing.records import Kind, Parsed
from processing.validation import to_json
from processing.vehicle_status import KIND as STATUSES
from sinks.kafka_messages import Message, Writer, apart, is_block
from tests.support import detections, event, report, statuses

FUTURE = "2055-01-01T00:00:00Z"


def parsed(text: bytes) -> list[Parsed]:
    return list(Document("", lambda: io.BytesIO(text), careful=False).parsed())


def published(
    kind: Kind, text: bytes, largest: int = 2_000_000
) -> tuple[list[Message], list[tuple[Any, ...]]]:
    """The messages, and position, path, reason and original of each reject."""
    writer = Writer(kind, "topic", largest, datetime.now(UTC) + timedelta(hours=24), 24)
    messages, rejects = [], []
    for block in parsed(text):
        if is_block(block) and (whole := writer.write_block(block)) is not None:
            messages += whole
            continue
        for element in apart(kind, block) if is_block(block) else [block]:
            some, rejected = writer.write(element)
            messages += some
            rejects += [
                (one.position, one.path, one.reason, json.loads(to_json(one.original))) for one in rejected
            ]
    return messages, rejects


def test_a_message_is_the_text_of_its_element_under_the_vehicle() -> None:
    texts = [b'{ "vehicle_id":"a",  "report_time":"2022-05-05T22:02:34.5+02:00","status":"driving"}'] * 2
    messages, rejects = published(STATUSES, b'{"vehicle_status": [\n' + b" ,\n ".join(texts) + b"\n]}")
    assert messages == [("a", texts[0])] * 2
    assert rejects == []


def test_numbers_and_unknown_fields_stay_as_they_are() -> None:
    usual = b'{"vehicle_id":"a","report_time":"2022-05-05T22:02:34Z","status":"x"'
    unusual = usual + b',"level":1.50,"big":12345678901234567890.123}'
    ((key, value),), _ = published(STATUSES, b'{"vehicle_status":[' + unusual + b"]}")
    assert (key, value) == ("a", unusual)


def test_an_event_is_one_message_with_all_its_detections_or_none() -> None:
    messages, rejects = published(
        EVENTS, detections(event(0, ("cars", 1), ("signs", 2)), event(1) | {"detections": []})
    )
    assert [len(json.loads(value)["detections"]) for _, value in messages] == [2, 0]
    assert rejects == []


def test_of_an_event_with_a_wrong_detection_the_others_go_one_by_one() -> None:
    wrong = event(0, ("cars", 1), ("signs", 2), ("trucks", 3), level=1)
    wrong["detections"][1]["object_value"] = "no"
    text = detections(wrong, event(1, ("cars", 4)))
    messages, rejects = published(EVENTS, text)
    found = [[one["object_type"] for one in json.loads(value)["detections"]] for _, value in messages]
    assert found == [["cars"], ["trucks"], ["cars"]]
    assert [json.loads(value).get("level") for _, value in messages] == [1, 1, None]
    assert [(position, path) for position, path, *_ in rejects] == [
        (1, "$.objects_detection_events[0].detections[1].object_value")
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_a_time_too_far_ahead_is_a_reject_and_its_neighbours_are_messages(count: int) -> None:
    late = report(vehicle="late") | {"report_time": FUTURE}
    usual = [report(second) for second in range(count)]
    messages, rejects = published(STATUSES, statuses(*usual, late, *usual))
    assert len(messages) == 2 * count
    assert rejects == [(count, f"$.vehicle_status[{count}]", "invalid", late)]


def test_a_record_too_large_for_its_topic_is_a_reject_and_its_neighbours_are_messages() -> None:
    large = report(vehicle="large", text="x" * 5000)
    messages, rejects = published(STATUSES, statuses(report(0), large, report(1)), 4000)
    assert len(messages) == 2
    assert rejects == [(1, "$.vehicle_status[1]", "refused", large)]


def test_an_event_too_large_for_its_topic_goes_detection_by_detection() -> None:
    many = [(f"object {number}", number) for number in range(200)]
    messages, rejects = published(EVENTS, detections(event(0, ("cars", 1)), event(1, *many)), 4000)
    assert (len(messages), rejects) == (201, [])
    assert all(len(value) < 4000 for _, value in messages)


def test_an_element_that_is_no_record_is_a_reject_with_all_that_it_was() -> None:
    messages, rejects = published(EVENTS, b'{"objects_detection_events":[7,{"vehicle_id":"a"}]}')
    assert messages == []
    assert [(position, original) for position, _, _, original in rejects] == [
        (0, 7),
        (1, {"vehicle_id": "a"}),
    ]
