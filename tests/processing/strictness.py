"""Values that a field takes and those that it refuses, for the tests of every kind of record."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec

from processing.validation import to_json
from tests.processing.support import Reading, read

MISSING = msgspec.UNSET

TEXTS = [
    "a",
    " ",
    "x" * 255,
    "\u00e9" * 255,
    "\U0001f600" * 255,
    "a new one",
    "line\nbreak",
    "'; --",
    "\ufeff",
]

NOT_TEXTS: list[tuple[Any, str]] = [
    (3, "Expected `str`, got `int`"),
    (2**70, "Expected `str`, got `int`"),
    (2.0, "Expected `str`, got `float`"),
    (True, "Expected `str`, got `bool`"),
    (None, "Expected `str`, got `null`"),
    ([], "Expected `str`, got `array`"),
    ({}, "Expected `str`, got `object`"),
    ("", "Expected `str` of length >= 1"),
    ("x" * 256, "Expected `str` of length <= 255"),
    ("a\0", "Expected text without NUL characters, got one with NUL"),
]

INTEGERS = [0, -1, 3, 2**31 - 1, -(2**31)]

NOT_INTEGERS = [
    ("3", "Expected `int`, got `str`"),
    (2.5, "Expected `int`, got `float`"),
    (True, "Expected `int`, got `bool`"),
    (None, "Expected `int`, got `null`"),
    ([], "Expected `int`, got `array`"),
    ({}, "Expected `int`, got `object`"),
    (2**31, "Expected `int` <= 2147483647"),
    (-(2**31) - 1, "Expected `int` >= -2147483648"),
    (2**63, "Expected `int` <= 2147483647"),
    (-(2**64), "Expected `int` >= -2147483648"),
]


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)  # type: ignore[misc, arg-type]


TIMES = [
    ("2022-06-05T21:02:34Z", utc(2022, 6, 5, 21, 2, 34)),
    ("2022-06-05T21:02:34.546Z", utc(2022, 6, 5, 21, 2, 34, 546_000)),
    ("2022-06-05T21:02:34.546789Z", utc(2022, 6, 5, 21, 2, 34, 546_789)),
    ("2022-06-05T21:02:34.546789123Z", utc(2022, 6, 5, 21, 2, 34, 546_789)),
    ("2022-06-05t21:02:34z", utc(2022, 6, 5, 21, 2, 34)),
    ("2022-06-05 21:02:34Z", utc(2022, 6, 5, 21, 2, 34)),
    ("2022-06-05T21:02:34+02:00", utc(2022, 6, 5, 19, 2, 34)),
    ("2022-06-05T21:02:34-05:30", utc(2022, 6, 6, 2, 32, 34)),
    ("2022-06-05T21:02:34-00:00", utc(2022, 6, 5, 21, 2, 34)),
    ("2024-02-29T00:00:00Z", utc(2024, 2, 29)),
    ("2022-06-05T21:02Z", utc(2022, 6, 5, 21, 2)),
    ("2022-06-05 21:02+02:00", utc(2022, 6, 5, 19, 2)),
    ("2022-06-05T21:02:34+00", utc(2022, 6, 5, 21, 2, 34)),
    ("2022-06-05T21:02:34.25-05", utc(2022, 6, 6, 2, 2, 34, 250_000)),
    ("2022-06-05t21:02+02", utc(2022, 6, 5, 19, 2)),
    ("2022-06-05T21:02:34+0200", utc(2022, 6, 5, 19, 2, 34)),
    ("2022-06-05T23:59:59.9999999Z", utc(2022, 6, 6)),
    ("0001-01-01T00:00:00Z", utc(1, 1, 1)),
    ("0001-01-01T01:00:00+01:00", utc(1, 1, 1)),
    ("9999-12-31T23:59:59.999999Z", utc(9999, 12, 31, 23, 59, 59, 999_999)),
    ("9999-12-31T23:59:59+01:00", utc(9999, 12, 31, 22, 59, 59)),
]

_NO_TIME = "Invalid RFC3339 encoded datetime"
_LEAP = "Expected seconds from 00 to 59, got a leap second"
_BEYOND = "Expected a time in the years 1 to 9999 of UTC, got one beyond"

NOT_TIMES = [
    ("2022-06-05T21:02:34", "Expected `datetime` with a timezone component"),
    ("0001-01-01T00:00:00+01:00", _BEYOND),
    ("9999-12-31T23:59:59-01:00", _BEYOND),
    ("2022-06-05T24:00:00Z", _NO_TIME),
    ("2022-06-05T23:59:60Z", _LEAP),
    ("2017-01-01T05:29:60.5+0530", _LEAP),
    ("2017-01-01T00:59:60+01", _LEAP),
    ("2022-06-05T21:02:60Z", _NO_TIME),
    ("2022-06-05T21:02:61Z", _NO_TIME),
    ("2022-06-05T24:00Z", _NO_TIME),
    ("2022-06-05T21:60Z", _NO_TIME),
    ("2022-W22-7T21:02:34Z", _NO_TIME),
    ("2022-W22-7T21:02Z", _NO_TIME),
    ("20220605T210234Z", _NO_TIME),
    ("2022-06-05T21:02", _NO_TIME),
    ("2022-06-05T21Z", _NO_TIME),
    ("2022-06-05T21:02.5Z", _NO_TIME),
    ("2022-06-05T21:02:34+2", _NO_TIME),
    ("2022-06-05T21:02:34+24", _NO_TIME),
    ("2022-06-05T21:02:34[Europe/Berlin]", _NO_TIME),
    ("2022-06-05T21:02:34+0\u0662", _NO_TIME),
    ("2022-06-05T21:02Z\n", _NO_TIME),
    ("2022-02-29T00:00:00Z", _NO_TIME),
    ("2022-06-05T21:02:34+24:00", _NO_TIME),
    ("0000-01-01T00:00:00Z", _NO_TIME),
    ("10000-01-01T00:00:00Z", _NO_TIME),
    ("2022-06-05", _NO_TIME),
    ("05/06/2022 21:02:34Z", _NO_TIME),
    ("1654462954", _NO_TIME),
    ("now", _NO_TIME),
    ("infinity", _NO_TIME),
    ("", _NO_TIME),
    (" 2022-06-05T21:02:34Z", _NO_TIME),
    ("2022-06-05T21:02:34Z\0", _NO_TIME),
    (1654462954, "Expected `datetime`, got `int`"),
    (1654462954.5, "Expected `datetime`, got `float`"),
    (2**64, "Expected `datetime`, got `int`"),
    (True, "Expected `datetime`, got `bool`"),
    (None, "Expected `datetime`, got `null`"),
    ([], "Expected `datetime`, got `array`"),
    ({}, "Expected `datetime`, got `object`"),
]


def missing(field: str) -> list[tuple[Any, str]]:
    return [(MISSING, f"Object missing required field `{field}`")]


def with_field(record: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """The record with that value, or without the field; MISSING stands for the latter."""
    others = {name: old for name, old in record.items() if name != field}
    return others if value is MISSING else {**others, field: value}


def read_array(key: str, *elements: Any) -> Reading:
    return read(b'{"' + key.encode() + b'":' + as_json(list(elements)) + b"}")


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def dropped_again(key: str, original: Any) -> Reading:
    """What a file of this one original holds."""
    return read(f'{{"{key}":[{to_json(original)}]}}'.encode())
