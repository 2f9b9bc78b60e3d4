"""Detection events: what each field takes, and what becomes of an event that is wrong in part."""

import io
import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from msgspec import Raw

from processing.detection_events import KEY, KIND, Detection
from processing.document import Document
from processing.validation import to_json
from tests.processing.strictness import (
    INTEGERS,
    MISSING,
    NOT_INTEGERS,
    NOT_TEXTS,
    NOT_TIMES,
    TEXTS,
    TIMES,
    dropped_again,
    missing,
    read_array,
    with_field,
)
from tests.processing.support import Reading, read
from tests.support import event

CARS = {"object_type": "cars", "object_value": 2}
EVERY_A = {"a": 1, "event.a": 2, "event.event.a": 3, "event.event.event.a": 4}
NOT_LISTS = [
    (3, "Expected `array`, got `int`"),
    (True, "Expected `array`, got `bool`"),
    ("[]", "Expected `array`, got `str`"),
    (None, "Expected `array`, got `null`"),
    ({}, "Expected `array`, got `object`"),
]
WRONG_EVENTS = [
    *[("vehicle_id", *odd) for odd in [*NOT_TEXTS, *missing("vehicle_id")]],
    *[("detection_time", *odd) for odd in [*NOT_TIMES, *missing("detection_time")]],
    *[("detections", *odd) for odd in [*NOT_LISTS, *missing("detections")]],
]
WRONG_DETECTIONS = [
    *[("object_type", *odd) for odd in [*NOT_TEXTS, *missing("object_type")]],
    *[("object_value", *odd) for odd in [*NOT_INTEGERS, *missing("object_value")]],
]


def event_of(*counted: Any, **more: Any) -> dict[str, Any]:
    return {**event(), "detections": list(counted), **more}


def found(reading: Reading) -> list[Detection]:
    assert all(isinstance(record, Detection) for record in reading.records)
    return [record for record in reading.records if isinstance(record, Detection)]


def extras(reading: Reading) -> list[Any]:
    return [json.loads(record.extra) if record.extra else None for record in found(reading)]


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_of_255_characters_is_taken(text: str) -> None:
    counted = {"object_type": text, "object_value": 1}
    (record,) = found(read_array(KEY, event_of(counted, vehicle_id=text)))
    assert (record.vehicle_id, record.object_type) == (text, text)


@pytest.mark.parametrize("value", INTEGERS)
def test_every_integer_of_32_bits_is_taken(value: int) -> None:
    (record,) = found(read_array(KEY, event_of({**CARS, "object_value": value})))
    assert record.object_value == value


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        ("3.0", 3),
        ("1e1", 10),
        ("-20E-1", -2),
        ("0.0", 0),
        ("-0.0", 0),
        ("0e999999999", 0),
        ("2147483647.0", 2**31 - 1),
    ],
)
def test_an_integer_may_have_a_point_or_an_exponent(spelling: str, value: int) -> None:
    (record,) = found(read(spelled(spelling)))
    assert record.object_value == value


@pytest.mark.parametrize(
    ("spelling", "detail"),
    [
        ("2.5", "Expected `int`, got `float`"),
        ("1e-400", "Expected `int`, got `float`"),
        ("2147483648.0", "Expected `int` <= 2147483647"),
        ("-1e19", "Expected `int` >= -2147483648"),
        ("-1e999999999", "Expected `int` >= -2147483648"),
        ("1" * 700, "Expected `int` <= 2147483647"),
    ],
)
def test_another_number_is_rejected_alone_as_it_was_written(spelling: str, detail: str) -> None:
    (reject,) = read(spelled(spelling)).rejected
    assert (reject.path, reject.detail) == (f"$.{KEY}[0].detections[0].object_value", detail)
    assert Decimal(str(reject.original["detections"][0]["object_value"])) == Decimal(spelling)


def spelled(number: str) -> bytes:
    text = json.dumps({KEY: [event_of({**CARS, "object_value": "N"})]})
    return text.replace('"N"', number).encode()


@pytest.mark.parametrize(("text", "instant"), TIMES)
def test_the_offset_of_a_time_is_honoured(text: str, instant: datetime) -> None:
    (record,) = found(read_array(KEY, event_of(CARS, detection_time=text)))
    assert abs(record.detection_time - instant).total_seconds() <= 1e-6


@pytest.mark.parametrize(("field", "value", "detail"), WRONG_EVENTS)
def test_an_event_that_cannot_be_read_is_one_reject(field: str, value: Any, detail: str) -> None:
    odd = with_field(event(), field, value)
    reading = read_array(KEY, event(1), odd, event(2))
    assert len(reading.records) == 4
    (reject,) = reading.rejected
    path = f"$.{KEY}[1]" + ("" if value is MISSING else f".{field}")
    assert (reject.position, reject.path, reject.reason) == (2, path, "invalid")
    assert (reject.detail, reject.original) == (detail, odd)


@pytest.mark.parametrize(("field", "value", "detail"), WRONG_DETECTIONS)
def test_a_wrong_detection_leaves_the_others_of_its_event(field: str, value: Any, detail: str) -> None:
    odd = with_field(CARS, field, value)
    good = [{"object_type": name, "object_value": 1} for name in ("a", "b")]
    reading = read_array(KEY, event(1), event_of(good[0], odd, good[1], note=5))
    assert [record.object_type for record in found(reading)] == ["pedestrians", "cars", "a", "b"]
    assert extras(reading)[2:] == [{"note": 5}, {"note": 5}]
    (reject,) = reading.rejected
    path = f"$.{KEY}[1].detections[1]" + ("" if value is MISSING else f".{field}")
    assert (reject.position, reject.path, reject.reason) == (3, path, "invalid")
    assert (reject.detail, reject.original) == (detail, event_of(odd, note=5))


@pytest.mark.parametrize(("field", "value", "detail"), WRONG_DETECTIONS)
def test_the_original_of_a_reject_can_be_dropped_again(field: str, value: Any, detail: str) -> None:
    reading = read_array(KEY, event_of(CARS, with_field(CARS, field, value), CARS, note="x"))
    (reject,) = reading.rejected
    again = dropped_again(KEY, reject.original)
    assert again.records == []
    assert [(each.detail, each.original) for each in again.rejected] == [(detail, reject.original)]


@pytest.mark.parametrize("odd", [5, 2**70, "x", None, True, [], [CARS]])
def test_a_detection_that_is_no_object_is_a_reject(odd: Any) -> None:
    reading = read_array(KEY, event_of(CARS, odd))
    assert len(reading.records) == 1
    (reject,) = reading.rejected
    assert (reject.path, reject.original) == (f"$.{KEY}[0].detections[1]", event_of(odd))


@pytest.mark.parametrize("element", [5, "x", True, None, [], [event()]])
def test_an_event_that_is_no_object_is_a_reject(element: Any) -> None:
    (reject,) = read_array(KEY, element).rejected
    assert (reject.path, reject.original) == (f"$.{KEY}[0]", element)


def test_rejects_and_records_count_on_through_the_file() -> None:
    odd = event_of(CARS, 1, CARS, 2)
    reading = read_array(KEY, odd, "x", event_of(), odd)
    assert len(reading.records) == 4
    assert [reject.position for reject in reading.rejected] == [1, 3, 4, 6, 8]


@pytest.mark.parametrize("elements", [[], [event_of()], [event_of(), event_of(note=1)]])
def test_without_detections_there_are_no_records(elements: list[Any]) -> None:
    reading = read_array(KEY, *elements)
    assert (reading.records, reading.rejected) == ([], [])


@pytest.mark.parametrize(
    ("of_event", "of_detection", "extra"),
    [
        ({}, {}, None),
        ({"a": 1}, {}, {"a": 1}),
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {"b": [2.5, {}]}, {"a": 1, "b": [2.5, {}]}),
        ({"a": 1}, {"a": 2}, {"a": 2, "event.a": 1}),
        ({"a": 3, "event.a": 4}, {"a": 1, "event.a": 2}, EVERY_A),
        ({"a": 2**70}, {"a": None}, {"a": None, "event.a": 2**70}),
        ({"object_type": "x"}, {"vehicle_id": "y"}, {"object_type": "x", "vehicle_id": "y"}),
    ],
)
def test_unknown_fields_of_both_are_kept(of_event: Any, of_detection: Any, extra: Any) -> None:
    element = event_of({**CARS, **of_detection}, CARS, **of_event)
    assert extras(read_array(KEY, element)) == [extra, of_event or None]


@pytest.mark.parametrize("unknown", [{"x": "\0"}, {"x\0": 1}, {"x": [{"y": "\0"}]}])
def test_unknown_fields_hold_no_nul(unknown: dict[str, Any]) -> None:
    reading = read_array(KEY, event_of(CARS, {**CARS, **unknown}), event_of(CARS, CARS, **unknown))
    assert len(reading.records) == 1
    places = [(reject.position, reject.path.partition(".x")[0]) for reject in reading.rejected]
    assert places == [(1, f"$.{KEY}[0].detections[1]"), (2, f"$.{KEY}[1]")]


@pytest.mark.parametrize("value", [2, "3"])
def test_unknown_fields_that_would_fill_the_memory_reject_the_event(value: Any) -> None:
    counted = {**CARS, "object_value": value}
    small = event_of(*[counted] * 500, note="x" * 1_000)
    large = event_of(*[counted] * 10_000, note="x" * 2_000_000)
    reading = read_array(KEY, small, large, event_of(CARS))
    assert len(reading.records) + len(reading.rejected) == 502
    (reject,) = [reject for reject in reading.rejected if reject.path == f"$.{KEY}[1]"]
    assert reject.position == 500
    assert json.loads(to_json(reject.original)) == large


@pytest.mark.parametrize(
    ("wrong", "note", "rejects"),
    [(100, "", 100), (20_000, "", 1), (100, "x" * 20_000, 1), (1, "x" * 2_000_000, 1)],
)
def test_an_event_with_too_much_that_is_wrong_is_one_reject(wrong: int, note: str, rejects: int) -> None:
    odd = event_of(CARS, *[5] * wrong, **({"note": note} if note else {}))
    reading = read_array(KEY, odd, event(1))
    assert len(reading.rejected) == rejects
    if rejects == 1 < wrong:
        (reject,) = reading.rejected
        assert (reject.position, reject.path) == (0, f"$.{KEY}[0].detections")
        assert reject.detail == (
            "Expected wrong detections of at most 1048576 bytes, each with its event, got more; "
            "the first: Expected `object`, got `int`"
        )
        assert json.loads(to_json(reject.original)) == odd
        assert len(reading.records) == 2
    else:
        assert len(reading.records) == 3


def repeating(field: str) -> str:
    return f'{{"object_type":"cars","object_value":2,{field}}}'


@pytest.mark.parametrize(
    ("field", "path"),
    [('"object_value":2', ".object_value"), ('"x":1,"x":1', ".x"), ('"x":[{"y":1,"y":2}]', ".x[0].y")],
)
def test_a_repeated_key_in_a_detection_rejects_it_alone(field: str, path: str) -> None:
    text = '{"vehicle_id":"v","detection_time":"2022-06-05T21:02:34Z","detections":[%s,%s,%s]}'
    reading = dropped_text(text % (repeating('"z":0'), repeating(field), repeating('"z":1')))
    assert len(reading.records) == 2
    (reject,) = reading.rejected
    assert (reject.position, reject.path) == (1, f"$.{KEY}[0].detections[1]{path}")
    (again,) = dropped_again(KEY, reject.original).rejected
    assert again.detail == reject.detail == "Expected each key once, got it twice"


@pytest.mark.parametrize(
    ("field", "path"),
    [('"vehicle_id":"v"', ".vehicle_id"), ('"detections":[]', ".detections"), ('"x":{"y":1,"y":1}', ".x.y")],
)
def test_a_repeated_key_in_an_event_rejects_all_of_it(field: str, path: str) -> None:
    start = '{"vehicle_id":"v","detection_time":"2022-06-05T21:02:34Z","detections":[],'
    (reject,) = dropped_text(start + field + "}").rejected
    assert (reject.position, reject.path) == (0, f"$.{KEY}[0]{path}")
    (again,) = dropped_again(KEY, reject.original).rejected
    assert again.detail == reject.detail


def dropped_text(element: str) -> Reading:
    return read(f'{{"{KEY}":[{element}]}}'.encode())


def test_a_large_event_is_held_as_its_text() -> None:
    content = '{"%s":[{"vehicle_id":"v","detection_time":"2022-06-05T21:02:34Z",'
    content += '"x":[%s,%s],"detections":[{%s}]}]}'
    content %= (KEY, "1" * 5_000, ",".join(["0.10"] * 10_000), '"object_type":"cars","object_value":2')
    (parsed,) = Document("x.json", lambda: io.BytesIO(content.encode()), careful=False).parsed()
    assert isinstance(parsed.source, Raw)
    assert parsed.bytes > len(content)
    ((_, original),) = KIND.locate(parsed, [0])
    assert f'{{"{KEY}":[{to_json(original)}]}}' == content


def test_origin_gives_back_one_detection_as_an_event() -> None:
    element = event_of(CARS, {**CARS, "object_value": 9}, note="x")
    (parsed,) = KIND.parse([element])
    locate = KIND.locate(parsed, range(len(parsed.records)))
    for offset, (record, (path, original)) in enumerate(zip(parsed.records, locate, strict=True)):
        assert path == f"$.{KEY}[0].detections[{offset}]"
        assert dropped_again(KEY, original).records == [record]
