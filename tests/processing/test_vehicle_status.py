"""Status reports: what each field takes, and what becomes of a report that is not as documented."""

import json
from datetime import datetime
from typing import Any

import pytest

from processing.vehicle_status import KEY, KIND, StatusReport
from tests.processing.strictness import (
    MISSING,
    NOT_TEXTS,
    NOT_TIMES,
    TEXTS,
    TIMES,
    dropped_again,
    missing,
    read_array,
    with_field,
)
from tests.support import report

REFUSED = [
    *[("vehicle_id", *odd) for odd in [*NOT_TEXTS, *missing("vehicle_id")]],
    *[("status", *odd) for odd in [*NOT_TEXTS, *missing("status")]],
    *[("report_time", *odd) for odd in [*NOT_TIMES, *missing("report_time")]],
]


def only_record(element: dict[str, Any]) -> StatusReport:
    reading = read_array(KEY, element)
    assert reading.rejected == []
    (record,) = reading.records
    assert isinstance(record, StatusReport)
    return record


@pytest.mark.parametrize("field", ["vehicle_id", "status"])
@pytest.mark.parametrize("text", TEXTS)
def test_every_text_of_255_characters_is_taken(field: str, text: str) -> None:
    assert getattr(only_record(with_field(report(), field, text)), field) == text


@pytest.mark.parametrize(("text", "instant"), TIMES)
def test_the_offset_of_a_time_is_honoured(text: str, instant: datetime) -> None:
    found = only_record(with_field(report(), "report_time", text)).report_time
    assert abs(found - instant).total_seconds() <= 1e-6


@pytest.mark.parametrize(("field", "value", "detail"), REFUSED)
def test_a_wrong_field_rejects_the_report_alone(field: str, value: Any, detail: str) -> None:
    odd = with_field(report(1), field, value)
    reading = read_array(KEY, report(0), odd, report(2))
    assert len(reading.records) == 2
    (reject,) = reading.rejected
    path = f"$.{KEY}[1]" + ("" if value is MISSING else f".{field}")
    assert (reject.position, reject.path, reject.reason) == (1, path, "invalid")
    assert reject.detail == detail
    assert reject.original == odd


@pytest.mark.parametrize(("field", "value", "detail"), REFUSED)
def test_the_original_of_a_reject_can_be_dropped_again(field: str, value: Any, detail: str) -> None:
    (reject,) = read_array(KEY, with_field(report(), field, value)).rejected
    (again,) = dropped_again(KEY, reject.original).rejected
    assert (again.detail, again.original) == (reject.detail, reject.original)
    assert len(dropped_again(KEY, {**reject.original, field: report()[field]}).records) == 1


@pytest.mark.parametrize("element", [5, 2**70, 1.5, "x", True, None, [], [report()]])
def test_what_is_no_object_is_a_reject(element: Any) -> None:
    (reject,) = read_array(KEY, element).rejected
    assert (reject.path, reject.original) == (f"$.{KEY}[0]", element)
    assert reject.detail.startswith("Expected `object`, got")


def test_rejects_keep_their_places() -> None:
    reading = read_array(KEY, 1, report(), 2, report(), 3)
    assert [reject.position for reject in reading.rejected] == [0, 2, 4]
    assert [reject.path for reject in reading.rejected] == [f"$.{KEY}[{index}]" for index in (0, 2, 4)]


UNKNOWN = [
    {"speed": 2.5},
    {"speed": 2**70, "tags": ["a", {"b": [None, True]}], "Status": "driving", "": {}},
    {"x" * 1000: "y" * 1000, "\u00e9": "\U0001f600\n"},
    {"extra": {"extra": None}, "vehicle_id ": 1},
]


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_unknown_fields_are_kept(unknown: dict[str, Any]) -> None:
    extra = only_record({**unknown, **report()}).extra
    assert extra is not None
    assert json.loads(extra) == unknown


def test_there_is_no_extra_without_unknown_fields() -> None:
    assert only_record(report()).extra is None


@pytest.mark.parametrize(
    ("unknown", "path"),
    [
        ({"x": "\0"}, ".x"),
        ({"x": ["a", {"y": "b\0"}]}, ".x[1].y"),
        ({"x\0": 1}, ".x\0"),
        ({"x": {"\0": 1}}, ".x"),
    ],
)
def test_unknown_fields_hold_no_nul(unknown: dict[str, Any], path: str) -> None:
    (reject,) = read_array(KEY, {**report(), **unknown}).rejected
    assert reject.path == f"$.{KEY}[0]{path}"
    assert reject.original == {**report(), **unknown}


def test_origin_gives_back_the_report_and_where_it_stood() -> None:
    elements = [report(0), report(1, note="x")]
    parsed = list(KIND.parse(elements))
    assert [origin for each in parsed for origin in KIND.locate(each, [0])] == [
        (f"$.{KEY}[0]", elements[0]),
        (f"$.{KEY}[1]", elements[1]),
    ]
