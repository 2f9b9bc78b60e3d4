"""The fast path: which documents it reads whole, and where it stops."""

import io
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import processing.document
import processing.fast_path
from processing.document import Document, Miscounted
from processing.fast_path import FastPath
from processing.file_types import KINDS
from processing.records import Kind, Parsed
from tests.processing.support import Reading, read
from tests.support import detections, event, report, statuses

EVENTS, STATUS = KINDS.values()


def windows(content: bytes, kind: Kind) -> tuple[FastPath, list[Parsed]]:
    text = io.BytesIO(content)
    found = FastPath(text.read(processing.fast_path.WINDOW_BYTES), text, kind)
    return found, list(found.parsed())


def one_by_one(content: bytes, kind: Kind) -> Reading:
    parsed = list(Document("x.json", lambda: io.BytesIO(content), careful=True).parsed())
    return Reading(
        kind.name,
        [record for each in parsed for record in each.records],
        [reject for each in parsed for reject in each.rejected],
    )


EVENT = event(1, ("cars", 2), ("signs", -3))
TEXT = json.dumps({"objects_detection_events": [EVENT]}).encode()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (detections(), EVENTS),
        (b' { "vehicle_status" : [ ] } \n', STATUS),
        (detections(event(1), event(2)), EVENTS),
        (detections({**event(1), "detections": []}), EVENTS),
        (json.dumps({"vehicle_status": [report(i) for i in range(3)]}, indent=4).encode(), STATUS),
        (TEXT.replace(b": ", b" :\t"), EVENTS),
        (json.dumps({"objects_detection_events": [dict(reversed(EVENT.items()))] * 3}).encode(), EVENTS),
        (statuses(report(vehicle="ü ✓", status="]},{ : [{")), STATUS),
    ],
)
def test_what_is_as_documented_is_read_whole(content: bytes, kind: Kind) -> None:
    found, parsed = windows(content, kind)
    assert found.is_whole
    assert Reading(kind.name, [record for each in parsed for record in each.records], []) == one_by_one(
        content, kind
    )


@pytest.mark.parametrize(
    "content",
    [
        TEXT.replace(b"vehicle_id", b"vehicle\\u005fid"),
        TEXT.replace(b"cars", b"c\\u0000rs"),
        TEXT.replace(b"cars", b"c\\ud83drs"),
        TEXT.replace(b"cars", b"c\xffrs"),
        TEXT.replace(b"cars", b"c\x01rs"),
        TEXT.replace(b"cars", b""),
        TEXT.replace(b"cars", b"x" * 256),
        TEXT.replace(b"2022-", b"0001-"),
        TEXT.replace(b"2022-", b"9999-"),
        TEXT.replace(b"546Z", b"546"),
        TEXT.replace(b'"object_value": 2', b'"object_value": 2.5'),
        TEXT.replace(b'"object_value": 2', b'"object_value": 2147483648'),
        TEXT.replace(b'"object_value": 2', b'"object_value": "2"'),
        TEXT.replace(b'"object_value": 2', b'"object_value": 2, "lane": 1'),
        TEXT.replace(b'"detections"', b'"lane": 1, "detections"'),
        TEXT.replace(b"}]}]}", b"}]}],}"),
        TEXT.replace(b"}]}]}", b'}]}], "x": 1}'),
        TEXT.replace(b"}]}]}", b"}]}]]}"),
        TEXT.replace(b"[", b"[\f", 1),
        TEXT.replace(b"}]}]}", b"}]}]\v}"),
        TEXT.replace(b"cars", b"c\0rs"),
        TEXT + bytes(3),
        TEXT + b"{}",
        TEXT[:-1],
        TEXT[:-2],
        TEXT[:-3],
        TEXT[:40],
        b"",
        b"[]",
        b'{"x',
    ],
)
def test_anything_else_is_left_to_the_slow_path(content: bytes) -> None:
    found, parsed = windows(content, EVENTS)
    assert (found.is_whole, found.elements, parsed) == (False, 0, [])


@pytest.mark.parametrize(
    "content",
    [
        TEXT.replace(b'"object_value": 2', b'"object_value": 1, "object_value": 2'),
        TEXT.replace(b'"object_value": 2', b'"object_value" : 1, "object_value": 2'),
        TEXT.replace(b'"vehicle_id"', b'"vehicle_id": "x", "vehicle_id"'),
        TEXT.replace(b'"detections"', b'"detections": [], "detections"'),
    ],
)
def test_a_repeated_key_is_detected_by_the_number_of_quotes_in_the_document(content: bytes) -> None:
    assert windows(content, EVENTS)[0].is_whole
    with pytest.raises(Miscounted):
        list(Document("x.json", lambda: io.BytesIO(content), careful=False).parsed())
    assert read(content).rejected


def test_elements_are_counted_after_they_are_yielded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processing.fast_path, "WINDOW_BYTES", 1000)
    text = io.BytesIO(detections(*[event(i, ("a", i), ("b", i)) for i in range(100)]))
    found = FastPath(text.read(1000), text, EVENTS)
    elements = records = 0
    for parsed in found.parsed():
        assert (found.elements, found.records) == (elements, records) == (parsed.index, parsed.position)
        elements, records = elements + parsed.count, records + len(parsed.records)
    assert (found.elements, found.records) == (elements, records) == (100, 200)


FIELDS = st.text("ab]}[{,: ü", min_size=1, max_size=5)
REPORTS = st.lists(st.builds(report, st.integers(0, 3599), FIELDS, FIELDS), max_size=8)
COUNTED = st.lists(st.tuples(FIELDS, st.integers(-(2**31), 2**31 - 1)), min_size=1, max_size=4)
DETECTED = st.lists(
    st.builds(
        lambda second, counted, car: event(second, *counted, vehicle=car),
        st.integers(0, 3599),
        COUNTED,
        FIELDS,
    ),
    max_size=8,
)
ODD: list[Any] = [None, 5, "x", [], {}, report(1, km=2), event(1, lane=3), {**event(1), "detections": [{}]}]
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[-+.\w]+|[^"]')
#: Blanks, shorter and longer than any window or element may be, and the token before which they stand.
BLANKS = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from([" ", "\r\n\t", " " * 70, "\n" * 500, "\t" * 2000])),
    max_size=5,
)


def spaced(content: str, blanks: list[tuple[int, str]]) -> bytes:
    tokens = TOKEN.findall(content)
    for place, blank in blanks:
        place %= len(tokens)
        tokens[place] = blank + tokens[place]
    return "".join(tokens).encode()


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.tuples(st.just(STATUS), REPORTS), st.tuples(st.just(EVENTS), DETECTED)),
    st.integers(0, 8),
    st.sampled_from([None, None, *ODD]),
    st.sampled_from([None, 0, 1]),
    BLANKS,
    st.integers(1, 300),
    st.integers(1, 2000),
)
def test_blocks_of_any_size_read_what_the_parser_reads(
    document: tuple[Kind, list[Any]],
    place: int,
    odd: Any,
    indent: int | None,
    blanks: list[tuple[int, str]],
    size: int,
    longest: int,
) -> None:
    kind, elements = document
    if odd is not None:
        elements.insert(place, odd)
    content = spaced(json.dumps({kind.key: elements}, indent=indent, ensure_ascii=False), blanks)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(processing.fast_path, "WINDOW_BYTES", size)
        patched.setattr(processing.fast_path, "_NEAR_END", size // 2)
        patched.setattr(processing.fast_path, "_MAX_ELEMENT_BYTES", longest)
        patched.setattr(processing.document, "CHUNK_BYTES", max(size, 40))
        reading = read(content)
        assert reading == one_by_one(content, kind)
        if kind is STATUS:
            assert len(reading.records) + len(reading.rejected) == len(elements)
        if odd is None and not blanks and size > 40 and longest > size + 600:
            assert windows(content, kind)[0].is_whole


def test_the_slow_path_continues_where_the_fast_path_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processing.fast_path, "WINDOW_BYTES", 1000)
    monkeypatch.setattr(processing.document, "CHUNK_BYTES", 1000)
    elements = [event(i, ("cars", i), ("signs", i)) for i in range(100)]
    elements[60]["detections"][1]["object_value"] = None
    content = detections(*elements)
    found, parsed = windows(content, EVENTS)
    assert 40 < found.elements < 60
    assert parsed[1].index == parsed[0].count == len(parsed[0].elements())
    assert parsed[1].position == len(parsed[0].records)
    reading = read(content)
    assert len(reading.records) == 199
    (reject,) = reading.rejected
    assert (reject.position, reject.path) == (
        121,
        "$.objects_detection_events[60].detections[1].object_value",
    )


A, B = json.dumps(report(1)).encode(), json.dumps(report(2)).encode()
MANY = json.dumps(event(1, *[(f"t{i}", i) for i in range(1_500)]), separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("content", "records"),
    [
        (b'{"vehicle_status":[%b,{%b%b]}' % (A, b" " * 1_050_000, B[1:]), 2),
        (b'{"vehicle_status":[%b%b,%b]}' % (A, b" " * 1_050_000, B), 2),
        (b'{"vehicle_status":[%b,%b%b]}' % (A, b" " * 1_050_000, B), 2),
        (b'{"vehicle_status":[%b,%b%b}]}' % (A, B[:-1], b" " * 1_050_000), 2),
        (b'{"objects_detection_events":[%b,{%b%b]}' % (MANY, b" " * 1_050_000, MANY[1:]), 3_000),
    ],
)
def test_blanks_as_long_as_an_element_may_be_hide_none(content: bytes, records: int) -> None:
    assert len(read(content).records) == records


def test_an_element_without_an_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processing.fast_path, "WINDOW_BYTES", 1000)
    monkeypatch.setattr(processing.fast_path, "_MAX_ELEMENT_BYTES", 4000)
    text = io.BytesIO(detections(event(1, *[("cars", i) for i in range(1000)])))
    assert [
        parsed.records for parsed in FastPath(text.read(1000), text, EVENTS).parsed() if parsed.records
    ] == []
    assert text.tell() == 5000


@pytest.mark.parametrize(
    ("content", "kind", "paths"),
    [
        (
            detections(event(1), {**event(2), "detections": []}, event(3, ("a", 1), ("b", 2), ("c", 3))),
            EVENTS,
            {1: ("[0].detections[1]", ("cars", 2)), 4: ("[2].detections[2]", ("c", 3))},
        ),
        (statuses(report(1), report(2), report(3)), STATUS, {0: ("[0]", None), 2: ("[2]", None)}),
    ],
)
def test_the_original_of_a_record_is_found_in_its_block(
    content: bytes, kind: Kind, paths: dict[int, Any]
) -> None:
    _, (parsed,) = windows(content, kind)
    locate = kind.locate(parsed, list(paths))
    for (offset, (path, counted)), (found, original) in zip(paths.items(), locate, strict=True):
        assert found == f"$.{kind.key}{path}"
        (record,) = kind.decode_fast(json.dumps([original]).encode())[1]  # type: ignore[index]
        assert record == parsed.records[offset]
        assert counted is None or (record.object_type, record.object_value) == counted  # type: ignore[union-attr]
