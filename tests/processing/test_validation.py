"""The validation rules that all fields share, and JSON text written from what was read."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processing.detection_events import alone
from processing.validation import Invalid, UniqueKeys, count_keys, extra_json, to_json, unknown_fields

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)


def with_repeats(text: str) -> Any:
    """JSON as a careful pass reads it."""

    def collect(pairs: list[tuple[str, Any]]) -> UniqueKeys:
        found = UniqueKeys()
        for name, value in pairs:
            found[name] = value
        return found

    return json.loads(text, object_pairs_hook=collect, parse_float=Decimal)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_json_text_decodes_to_the_same_value(value: Any) -> None:
    assert json.loads(to_json(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        '{"a":1,"a":1,"b":{"c":[{"d":0,"d":null}]}}',
        '{"":1,"":2,"":3}',
        '[1E+999999999,0.10,-0.0,123456789012345678901234567890,"\\u0000"]',
    ],
)
def test_repeated_keys_and_numbers_are_written_as_they_were_read(text: str) -> None:
    assert to_json(with_repeats(text)) == text


def test_one_detection_of_an_event_keeps_its_repeated_keys() -> None:
    event = with_repeats('{"a":1,"detections":[0,{"b":1,"b":2}],"c":3}')
    assert to_json(alone(event, event["detections"][1])) == '{"a":1,"detections":[{"b":1,"b":2}],"c":3}'


@pytest.mark.parametrize(
    ("text", "keys"), [("1", 0), ("{}", 0), ('{"a":1}', 1), ('[{"a":{"b":[{"c":1},[{"d":2}]]}}]', 4)]
)
def test_keys_of_all_objects_are_counted(text: str, keys: int) -> None:
    assert count_keys(json.loads(text)) == keys


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"a":1,"a":2}', ".a"),
        ('{"a":[{},{"b":1,"b":2}]}', ".a[1].b"),
        ('{"a":[[{"b":1,"b":2}]]}', ".a[0][0].b"),
        ('{"known":1,"known":2}', ".known"),
    ],
)
def test_a_repeated_key_is_found_at_its_path(text: str, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        unknown_fields(with_repeats(text), ("known",))
    assert (caught.value.detail, caught.value.path) == ("Expected each key once, got it twice", path)


@pytest.mark.parametrize("text", ['{"a":1,"b":{"a":2}}', '{"known":{"a":1,"a":1}}', '{"a":[{},{}]}'])
def test_unrepeated_keys_and_repeats_inside_known_fields_are_valid(text: str) -> None:
    unknown_fields(with_repeats(text), ("known",))


def test_no_unknown_fields_are_null() -> None:
    assert extra_json({}) is None
    assert extra_json({"a": None}) == '{"a":null}'
