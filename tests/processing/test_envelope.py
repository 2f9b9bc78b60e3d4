"""Fields beside the array: kept, bounded, and never a way to lose a row."""

import json

import pytest

from processing.envelope import MAX_EXTRA_BYTES
from tests.processing.support import read, refusal
from tests.support import detections, event, report, statuses

HEADS = [{}, {"version": "1.2", "generated_at": "2024-03-01T10:00:00Z"}, {"a": [{"b": "]}"}]}]
TAILS = [{}, {"count": 1}, {"item": {}}, {"c": [1]}, {"c": [{}]}, {"x": "],", "y": [[], {"z": ["\u00e9"]}]}]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("records", [0, 1, 1000])
@pytest.mark.parametrize("blank", [None, 1])
def test_fields_beside_the_array_are_kept(head: dict, tail: dict, records: int, blank: int | None) -> None:  # type: ignore[type-arg]
    for content in (statuses(*map(report, range(records))), detections(*map(event, range(records)))):
        alone = read(content)
        reading = read(json.dumps({**head, **json.loads(content), **tail}, indent=blank).encode())
        assert (reading.records, reading.rejected) == (alone.records, [])
        assert json.loads(reading.extra or "{}") == {**head, **tail}


@pytest.mark.parametrize("field", ['"x":1,"x":2', '"x":{"y":1,"y":1}', '"x":"\\u0000"', '"x":1e200000'])
def test_fields_that_can_not_be_kept_fail_the_file(field: str) -> None:
    for content in (f'{{{field},"vehicle_status":[]}}', f'{{"vehicle_status":[],{field}}}'):
        assert refusal(content.encode()).startswith("fields beside the array: Expected")


def test_half_of_a_surrogate_pair_fails_the_file() -> None:
    assert "surrogate" in refusal(b'{"x":"\\ud83d","vehicle_status":[]}')


def test_fields_beside_the_array_are_bounded() -> None:
    fits, beyond = ("x" * (MAX_EXTRA_BYTES + size) for size in (-100, 1))
    for template in ('{"x":"%s","vehicle_status":[]}', '{"vehicle_status":[],"x":"%s"}'):
        assert read((template % fits).encode()).extra == f'{{"x":"{fits}"}}'
        refusal((template % beyond).encode())
    refusal(f'{{"x":"{fits}","vehicle_status":[],"y":"{fits}"}}'.encode())


def test_a_search_for_the_end_is_bounded() -> None:
    refusal(b'{"vehicle_status":[],' + b'"":[[],' * 9_000 + b"1}")


@pytest.mark.parametrize("between", [b"", b"\n"])
def test_several_documents_are_named(between: bytes) -> None:
    document = statuses(report())
    assert "(NDJSON?)" in refusal(document + between + document)
    rows = between.join(json.dumps(report(number)).encode() for number in range(2))
    assert "(NDJSON?)" in refusal(rows)
