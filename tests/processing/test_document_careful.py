"""A careful pass reads repeated and long keys, and no document takes the memory."""

import io
import re
from contextlib import nullcontext
from typing import Any

import pytest

from processing.document import Document, LongKey, RepeatedKey
from processing.errors import BadFile, Incomplete
from tests.processing.bombs import BOMBS
from tests.processing.support import REPORT, START, peak, read, statuses_with
from tests.support import report, statuses


def repeated(field: str) -> bytes:
    """Three reports, that in the middle with a field more."""
    return START + REPORT + b"," + REPORT[:-1] + b"," + field.encode() + b"}," + REPORT + b"]}"


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ('"status":"parking"', ".status"),
        ('"status":"driving"', ".status"),
        (r'"st\u0061tus":"parking"', ".status"),
        ('"x":1,"x":1', ".x"),
        ('"x":{"y":1,"z":{},"y":2}', ".x.y"),
        ('"x":[0,{"y":1,"y":1}]', ".x[1].y"),
        ('"a":9223372036854775808,"x":1,"x":2', ".x"),
    ],
)
def test_a_repeated_key_rejects_that_record_alone(field: str, path: str) -> None:
    reading = read(repeated(field))
    assert len(reading.records) == 2
    (reject,) = reading.rejected
    assert (reject.position, reject.path) == (1, "$.vehicle_status[1]" + path)
    assert reject.detail == "Expected each key once, got it twice"


def test_a_document_is_read_carefully_only_where_it_must_be() -> None:
    def first_pass(content: bytes) -> None:
        list(Document("a.json", lambda: io.BytesIO(content), careful=False).parsed())

    first_pass(statuses(report(), report(1, x={"a": [1, {"b": ":"}]})))
    with pytest.raises(RepeatedKey):
        first_pass(repeated('"x":1,"x":1'))
    first_pass(statuses_with(b"9223372036854775808"))


LONG = b"x" * 2_000


@pytest.mark.parametrize("before", [0, 63_000, 65_000, 65_536])
@pytest.mark.parametrize(
    ("field", "is_long"),
    [
        (b'{"%b":1}' % LONG, True),
        (b'{"%b" \t\n:1}' % (LONG * 50), True),
        (b'{"%b":1}' % (b'\\"' * 2_000), True),
        (b'{"%b":1}' % (b"\\\\" * 2_000), True),
        (b'{"%b":1}' % (b" " * 2_000), True),
        (b'{"%b%b":1}' % (b"x" * 1_000, rb"\u00e9" * 1_000), True),
        (b'["%b",{"k":"%b"}]' % (LONG, LONG * 50), False),
        (b"[%b1]" % (b"1.5, " * 1_000), False),
        (b'{%b"k"%b:1}' % (b" " * 2_000, b" " * 2_000), False),
        (b'{"k":"%b\\":"}' % LONG, False),
    ],
)
def test_a_long_key_is_read_carefully_and_nothing_else_that_is_long(
    before: int, field: bytes, is_long: bool
) -> None:
    content = statuses_with(b'"%b",\n"y":%b' % (b"z " * (before // 2), field))
    document = Document("a.json", lambda: io.BytesIO(content), careful=False)
    with pytest.raises(LongKey) if is_long else nullcontext():
        list(document.parsed())
    assert len(read(content).records) == 3


@pytest.mark.parametrize("size", [600, 5_000, 70_000])
@pytest.mark.parametrize("tail", [b"]}", b",]}", b"", b',{"a":"'])
def test_a_long_key_changes_nothing_in_the_message(size: int, tail: bytes) -> None:
    def outcome_of(key: bytes) -> tuple[object, ...]:
        content = START + b'{"%b":[{"y":1,"y":2}]},%b,[1]%b' % (key, REPORT, tail)
        try:
            reading = read(content)
        except (BadFile, Incomplete) as error:
            return type(error), str(error).replace(str(len(content) - 2), "there")
        paths = [reject.path for reject in reading.rejected]
        return len(reading.records), [(reject.position, reject.detail) for reject in reading.rejected], paths

    assert outcome_of(b"x" * size) == outcome_of(b"x")


@pytest.mark.parametrize("careful", [False, True])
def test_both_passes_read_the_same(careful: bool) -> None:
    odd: list[Any] = [
        report(2, x=[1, 2.5, {"": None}]),
        report(3, vehicle=""),
        {"vehicle_id": 5},
        [],
        None,
        "x",
    ]
    content = statuses(report(), *odd)
    document = Document("a.json", lambda: io.BytesIO(content), careful=careful)
    elements = list(document.parsed())
    assert [parsed.index for parsed in elements] == list(range(7))
    assert [parsed.keys for parsed in elements] == [3, 5, 3, 1, 0, 0, 0]
    assert [len(parsed.records) for parsed in elements] == [1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("name", BOMBS)
def test_no_document_takes_the_memory_or_the_process(name: str) -> None:
    verdict, megabytes = peak("-m", "tests.processing.bombs", name)
    assert re.match("[Ee]xpected .* got", verdict)
    assert megabytes < 128
