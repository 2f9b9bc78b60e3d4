"""Numbers are kept exactly as they are written, or reject their record alone."""

from decimal import Decimal

import pytest

from processing.detection_events import Detection
from processing.validation import to_json
from tests.processing.support import REPORT, START, read, refusal, statuses_with
from tests.support import detections, event


@pytest.mark.parametrize(
    "number",
    [
        2**31,
        2**53 + 1,
        2**63 - 1,
        -(2**63),
        2**63,
        2**64,
        -(2**64),
        10**300,
        int("1" * 999),
    ],
)
def test_extra_keeps_an_integer_of_any_size(number: int) -> None:
    records = read(statuses_with(str(number).encode())).records
    assert [record.extra for record in records] == [None, f'{{"x":{number}}}', None]


SPELLINGS = [
    "0.10000000000000001",
    "48.12345678901234567",
    "1.10",
    "-0.0",
    "5e-324",
    "1e-400",
    "1e400",
    "1E+400",
    "1e22",
    "1e131071",
    "-1.5e-16382",
    "18446744073709551616.5",
    "1" * 4_301,
    "-" + "9" * 131_072,
    "0." + "3" * 16_383,
]


@pytest.mark.parametrize("number", SPELLINGS)
@pytest.mark.parametrize("beside", ["", "18446744073709551616", "{}", '{"y":1,"y":2}'])
def test_extra_keeps_the_decimal_that_was_written_whatever_else_the_file_holds(
    number: str, beside: str
) -> None:
    odd = b",".join([REPORT[:-1] + b',"x":%b}' % text.encode() for text in (number, beside) if text])
    record = read(START + odd + b"]}").records[0]
    assert record.extra is not None
    assert Decimal(record.extra.removeprefix('{"x":').removesuffix("}")).compare_total(Decimal(number)) == 0


@pytest.mark.parametrize("number", [*SPELLINGS, "0.0e-99999", "1e200000", "1e-99999", "1" * 200_000])
@pytest.mark.parametrize("beside", ["", '{"y":1,"y":2}'])
def test_an_original_keeps_the_decimal_that_was_written(number: str, beside: str) -> None:
    odd = b'{"x":%b},{"x":%b}' % (number.encode(), (beside or "1").encode())
    original = to_json(read(START + odd + b"]}").rejected[0].original)
    assert Decimal(original.removeprefix('{"x":').removesuffix("}")).compare_total(Decimal(number)) == 0


@pytest.mark.parametrize("zero", ["0.0e-99999", "0e200000", "-0E-20000", "0e999999999", "0." + "0" * 20_000])
def test_zero_is_zero_however_it_is_written(zero: str) -> None:
    assert read(statuses_with(zero.encode())).records[1].extra == '{"x":0}'


@pytest.mark.parametrize(
    "number",
    [
        "1e131072",
        "1e200000",
        "-1.5e999999999",
        "1e999999999999999999",
        "1e-16384",
        "1.5e-16383",
        "10e-16384",
        "1e-999999999",
        "1" * 131_073,
        "1." + "0" * 16_384,
        "1" * 200_000 + ".5",
        "1" + "0" * 140_000 + "e-140000",
    ],
)
def test_a_number_that_no_column_holds_rejects_that_record_alone(number: str) -> None:
    reading = read(statuses_with(b'[{"y":%b}]' % number.encode()))
    assert len(reading.records) == 2
    (reject,) = reading.rejected
    assert (reject.position, reject.path) == (1, "$.vehicle_status[1].x[0].y")
    assert reject.detail == (
        "Expected a number of at most 131072 digits before its point and 16383 behind it, got a longer one"
    )


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**63, 2**64, 10**500])
def test_a_value_beyond_its_column_rejects_that_record_alone(value: int) -> None:
    reading = read(
        detections(event(0, ("a", 1), ("b", 2)), event(1), event(2, ("c", 3))).replace(
            b":2}", b":%d}" % value, 1
        )
    )
    assert [record.object_type for record in reading.records if isinstance(record, Detection)] == [
        "a",
        "pedestrians",
        "cars",
        "c",
    ]
    (reject,) = reading.rejected
    assert reject.path == "$.objects_detection_events[0].detections[1].object_value"
    assert reject.original["detections"] == [{"object_type": "b", "object_value": value}]


@pytest.mark.parametrize("digits", [b"1" * 4_301, b"-" + b"1" * 100_000])
def test_an_error_behind_a_long_number_is_reported_with_its_byte(digits: bytes) -> None:
    start = START + REPORT[:-1] + b',"x":' + digits
    assert refusal(start + b"x}]}").endswith(f"at byte {len(start)}, in element 0")


@pytest.mark.parametrize("digits", [1_000, 5_000, 100_000, 200_000])
def test_digits_in_a_text_are_no_number(digits: int) -> None:
    """Read carefully, since a key comes twice."""
    for text in (b"1" * digits, b'\\\\\\"' + b"9" * digits, b"x" * 65_000 + b"1" * digits):
        reading = read(statuses_with(b'"%b","y":1,"y":2' % text))
        assert (len(reading.records), len(reading.rejected)) == (2, 1)


@pytest.mark.parametrize("number", [b"1e9999999999999999999", b"-1E+9999999999999999999", b"1e" + b"9" * 900])
def test_an_exponent_beyond_all_numbers_spoils_the_document(number: bytes) -> None:
    assert refusal(statuses_with(number)) == "expected exponents of at most 18 digits, got more in element 1"
