"""Documents of every shape, and the errors of those that are wrong."""

import gzip
import io
import re
from pathlib import Path
from typing import Any

import pytest

from processing.document import Document
from processing.errors import BadFile, Incomplete
from sources.local_file import open_file
from tests.processing.support import REPORT, START, read, read_source, refusal, statuses_with
from tests.support import detections, event, report, statuses

SHAPE = "expected one top-level key with an array under it, got something else"
KEYS = "objects_detection_events, vehicle_status"
SECRET = b"hunter2"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"[]", "an array"),
        (b'[{"vehicle_status":[]}]', "an array"),
        (b"null", "null"),
        (b"true ", "a boolean"),
        (b"5 ", "a number"),
        (b"5", "a number"),
        (b" -0.5E+7", "a number"),
        (b"1e400", "a number"),
        (b"1" * 70_000, "a number"),
        (b'{"vehicle_status":18446744073709551616}', "a number under the key 'vehicle_status'"),
        (b'{"a":1e-99999}', "a number under the key 'a'"),
        (b'"vehicle_status"', "text"),
        (b"{}", "an empty object"),
        (b" { } ", "an empty object"),
        (b'{"vehicle_status":{}}', "an object under the key 'vehicle_status'"),
        (b'{"vehicle_status":{"item":[{}]}}', "an object under the key 'vehicle_status'"),
        (b'{"vehicle_status":null}', "null under the key 'vehicle_status'"),
        (b'{"vehicle_status":7,"vehicle_status":[]}', "a number under the key 'vehicle_status'"),
        (b'{"vehicle_status":"[]"}', "text under the key 'vehicle_status'"),
        (b'{"vehicle_status":false}', "a boolean under the key 'vehicle_status'"),
        (b'{"a\\u001b\\n' + b"x" * 50 + b'":1}', r"a number under the key 'a\x1b\n" + "x" * 37 + "'"),
    ],
)
def test_what_stands_in_place_of_the_array_is_named(content: bytes, found: str) -> None:
    assert refusal(content) == f"expected one array under one of the keys {KEYS}, got {found}"


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ('"vehicles"', "'vehicles'"),
        ('"vehicle_status.item"', "'vehicle_status.item'"),
        ('""', "''"),
        ('"Vehicle_status"', "'Vehicle_status'"),
        (r'"vehicle\u005fstatu\u00e9"', r"'vehicle_statu\xe9'"),
        ('"' + "x" * 100 + '"', "'" + "x" * 40 + "'"),
    ],
)
def test_another_top_level_key_is_named(key: str, shown: str) -> None:
    content = f"{{{key}:[{{}}]}}".encode()
    assert refusal(content) == f"expected one of the top-level keys {KEYS}, got {shown}"


def test_the_key_must_be_the_one_that_the_name_promises() -> None:
    reason = "expected the top-level key vehicle_status of the file's name, got 'objects_detection_events'"
    assert refusal(detections(event()), "vehicles_status_1.json") == reason
    assert read(detections(event()), "objects_detection_1.json").kind == "objects_detection"


@pytest.mark.parametrize("name", ["other.json", "vehicles_status_1.json", "objects_detections.json"])
def test_a_file_of_another_name_is_known_by_its_key(name: str) -> None:
    assert read(statuses(report()), name).kind == "vehicles_status"


@pytest.mark.parametrize(
    "content",
    [
        rb'{"vehicle\u005fstatus":[%b]}' % REPORT,
        rb'{"vehicle_\u0073tatus" : [ %b ] }' % REPORT,
        b' \t\r\n{\n"vehicle_status"\t:\r[\n%b\n]\n}\n ' % REPORT,
        b" " * 60_000 + START + REPORT + b"]}",
        b" " * 70_000 + START + REPORT + b"]}",
        b"{" + b"\n" * 70_000 + START[1:] + REPORT + b"]}",
        START[:-2] + b"\t" * 70_000 + START[-2:] + REPORT + b"]}",
        START[:-1] + b"\r" * 70_000 + START[-1:] + REPORT + b"]}",
        START + b" " * 70_000 + REPORT + b"]}",
        b" " * 4_000_000 + b"{" + b" " * 70_000 + rb'"vehicle\u005fstatus":[%b]}' % REPORT,
    ],
)
def test_a_key_may_be_written_in_every_way_that_json_allows(content: bytes) -> None:
    assert len(read(content).records) == 1


def test_a_key_must_stand_in_the_first_chunk() -> None:
    reason = f"expected one of the keys {KEYS} in the first 65536 bytes, got none"
    assert refusal(rb'{"\"%b":[]}' % (b"x" * 70_000)) == reason


def test_blanks_before_the_array_have_a_bound() -> None:
    reason = "expected records of at most 4194304 bytes, got a longer one"
    assert refusal(b" " * 5_000_000 + START + b"]}") == reason


@pytest.mark.parametrize(("byte", "name"), [(b"\f", "form feed"), (b"\v", "vertical tab")])
@pytest.mark.parametrize("place", [0, 1, len(START) - 2, len(START) - 1, len(START), -2, -1, None])
@pytest.mark.parametrize("extra", [b"", b',"x":1'])
def test_what_is_no_white_space_of_json_spoils_the_document(
    byte: bytes, name: str, place: int | None, extra: bytes
) -> None:
    content = START + REPORT[:-1] + extra + b"}]}"
    where = len(content) if place is None else place % len(content)
    content = content[:where] + byte + content[where:]
    assert refusal(content) == f"expected valid JSON, got a {name} at byte {where}"


@pytest.mark.parametrize("content", [b'{"vehicle_status":[]}', b'{"objects_detection_events": [ ] }'])
def test_an_empty_array_is_a_document_without_records(content: bytes) -> None:
    assert read(content).records == []


@pytest.mark.parametrize(
    "content",
    [
        statuses(report(), report(1)),
        detections(event(), event(1, note="\u00e9\U0001f600")),
        rb'{ "vehicle_status" : [ {"a":"\ud83d\ude00\\", "b":[-1.5e3,true,null]}, 12, [] ] }',
        b'{"vehicle\\u005fstatus":[' + REPORT + b"]}",
    ],
)
def test_every_beginning_of_a_document_is_incomplete(content: bytes) -> None:
    read(content)
    for end in range(len(content)):
        with pytest.raises(Incomplete):
            read(content[:end])


@pytest.mark.parametrize("content", [b"", b" \n", b"{", b"tru", b'"abc', b"-", b"1.", b'{"other'])
def test_the_beginning_of_anything_is_incomplete(content: bytes) -> None:
    with pytest.raises(Incomplete, match="it ends in the middle, after 0 whole elements"):
        read(content)


@pytest.mark.parametrize("tail", [b'"', b' "abc', b" tru", b"1"])
def test_what_begins_behind_the_document_is_incomplete(tail: bytes) -> None:
    with pytest.raises(Incomplete, match="it ends in the middle"):
        read(statuses(report()) + tail)


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("zeros", [1, 3, 16, 100_000])
def test_zeros_outside_of_strings_are_what_is_not_written_yet(zeros: int, careful: bool) -> None:
    content = statuses(report(), report(1, x=1))
    marks = [match.start() for match in re.finditer(rb'[\[\]{},:](?=["\[\]{},:]|$)', content)]
    for place in [0, *marks, len(content)]:
        text = content[:place] + bytes(zeros) + content[place:]
        with pytest.raises(Incomplete, match=f"it holds zeros in place of text at byte {place}"):
            list(Document("x.json", lambda text=text: io.BytesIO(text), careful=careful).parsed())  # type: ignore[misc]


@pytest.mark.parametrize("zeros", [1, 3, 16, 100_000])
def test_zeros_to_the_end_are_what_is_not_written_yet_wherever_they_begin(zeros: int) -> None:
    content = statuses(report(), report(1, x="\u00e9\\", y=[1.5, True]))
    for place in range(len(content) + 1):
        with pytest.raises(Incomplete, match=r"zeros|in the middle"):
            read(content[:place] + bytes(zeros))


def test_a_zero_in_a_string_is_a_bad_character() -> None:
    content = statuses(report(status="driving"))
    for zeros in (1, 100):
        reason = refusal(content.replace(b"driv", b"driv" + bytes(zeros)))
        assert "invalid character inside string" in reason


def test_whole_elements_of_an_incomplete_document_are_counted() -> None:
    with pytest.raises(Incomplete, match="it ends in the middle, after 2 whole elements"):
        read(statuses(report(), report(1))[:-2])


@pytest.mark.parametrize("tail", [b"x", b"]", b"}", b"{}", b"[]", statuses(report()), b"x" + bytes(16)])
def test_what_follows_the_document_spoils_it(tail: bytes) -> None:
    content = statuses(report())
    several = f"one behind the other (NDJSON?), at byte {len(content)}"
    garbage = f"trailing garbage at byte {len(content)}, in element 1"
    assert (several if tail[:1] in (b"{", b"[") else garbage) in refusal(content + tail)


@pytest.mark.parametrize("tail", [b',"vehicle_status":[]}', b',"objects_detection_events":1}'])
@pytest.mark.parametrize("records", [0, 1, 1000])
def test_a_second_key_spoils_the_document(tail: bytes, records: int) -> None:
    content = statuses(*map(report, range(records)))
    assert refusal(content[:-1] + tail).startswith("expected one array under one top-level key, got another")


SYNTAX = [
    (b"", b"NaN"),
    (b"", b"Infinity"),
    (b"-", b"Infinity"),
    (b"", b"'a'"),
    (b"", b"// x"),
    (b"", b"+1"),
    (b"", b".5"),
    (b"", b","),
    (b"", b":"),
    (b"{} ", b"{}"),
    (b"{},", b"]"),
    (b"[1", b"}"),
    (b"{", b"]"),
    (b'{"a"', b"]"),
    (b'{"a":1,', b"}"),
    (b"nul", b",1"),
    (b"t", b"True"),
    (b"1.", b"]"),
    (b"1e", b"]"),
    (b"-", b"x"),
    (b'"', b'\x01"'),
    (b'"', b'\n"'),
    (b'"\\', b'x"'),
    (b'"\\u00', b'gg"'),
    (b'"', b'\xff"'),
    (b'"', b'\x80"'),
    (b'"\xc3', b'"'),
    (b'"\xe2\x82', b'"'),
    (b'"' + b"x" * 100_000, b'\x01"'),
]


@pytest.mark.parametrize(("good", "bad"), SYNTAX)
@pytest.mark.parametrize("before", [0, 100, 437, 2_000])
def test_a_syntax_error_is_reported_with_its_byte_and_its_element(
    before: int, good: bytes, bad: bytes
) -> None:
    start = START + (REPORT + b",") * before + good
    element = before + good.startswith(b"{}")
    assert refusal(start + bad + b"]}").endswith(f"at byte {len(start)}, in element {element}")


@pytest.mark.parametrize("compressed", [False, True])
def test_the_byte_of_a_syntax_error_is_that_of_the_text(tmp_path: Path, compressed: bool) -> None:
    start = START + (REPORT + b",") * 2_000
    content = start + b"NaN]}"
    (tmp_path / "a.json").write_bytes(gzip.compress(content) if compressed else content)
    with open_file(str(tmp_path), "a.json") as source, pytest.raises(BadFile) as caught:
        read_source(source)
    assert str(caught.value).endswith(f"at byte {len(start)}, in element 2000")


@pytest.mark.parametrize(
    "text",
    [
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xed\xb0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"caf\xe9",
    ],
)
@pytest.mark.parametrize("where", [b'{"a":"%b"}', b'{"%b":1}', b'"%b"'])
def test_text_that_is_not_utf_8_spoils_the_document(where: bytes, text: bytes) -> None:
    assert "invalid bytes in UTF8 string" in refusal(START + where % text + b"]}")


@pytest.mark.parametrize(
    ("good", "bad"), [*SYNTAX[:-1], (b"", b"1e99999999999999999999"), (b"", b"1" * 1000)]
)
def test_no_error_quotes_the_file(good: bytes, bad: bytes) -> None:
    secret = b'{"%b":"%b"}' % (SECRET, SECRET)
    content = START + secret + b"," + good + bad + SECRET + b"," + secret + b"]}"
    assert SECRET.decode() not in refusal(content)
    for end in range(len(START), len(content)):
        with pytest.raises((BadFile, Incomplete)) as caught:
            read(content[:end])
        assert SECRET.decode() not in str(caught.value)


def test_no_reject_quotes_the_file_in_its_reason() -> None:
    secret = SECRET.decode()
    odd: list[Any] = [
        report(vehicle=secret * 99),
        report(status=secret + "\0"),
        {**report(), "report_time": secret},
        secret,
    ]
    rejected = read(statuses(*odd)).rejected
    assert len(rejected) == 4
    assert not any(secret in reject.detail + reject.path for reject in rejected)


@pytest.mark.parametrize("half", [rb"\ud83d", rb"\ude00", rb"\ud83d\n"])
def test_half_of_a_surrogate_pair_spoils_the_document(half: bytes) -> None:
    assert "half of a surrogate pair" in refusal(statuses_with(b'"' + half + b'"'))
