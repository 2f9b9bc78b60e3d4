"""The structure of a document, against a plain scanner, wherever its chunks end."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processing.errors import BadFile
from processing.json_limits import MAX_DEPTH, MAX_ELEMENT_BYTES, JsonLimits

CHUNK = 64 * 1024

#: Escapes, quotes, brackets and colons in strings, backslashes before quotes, pairs of surrogates.
NASTY = (
    rb'{"vehicle_status":[{"a\"b":"[{\\","\\":"\\\\\"]}:"},"\ud83d\ude00\\ud800","x\\\\",'
    rb'{"k":{"":[[],{},":",["::",":::"]],":::":"::","::":":::"},"\\\"":""},"\u005c\u0022",'
    rb'{"t":"2022-06-05T21:02:34+02:00","":""},[[["[["]]],"\\","","",":"]}'
)


@dataclass
class Scanned:
    """What a document has outside of its strings."""

    marks: bytes
    keys: int
    deepest: int
    is_one_array: bool


def scan(document: bytes) -> Scanned:
    """The reference: byte by byte."""
    marks, depth, deepest = bytearray(), 0, 0
    in_string = escaped = False
    for byte in document:
        if in_string:
            ends = byte == ord('"') and not escaped
            escaped = byte == ord("\\") and not escaped
            in_string = not ends
        elif byte == ord('"'):
            in_string = True
        elif byte in b"[]{}:":
            marks.append(byte)
            depth += (byte in b"[{") - (byte in b"]}")
            deepest = max(deepest, depth)
    return Scanned(bytes(marks), marks.count(b":"), deepest, is_one_array_under_one_key(bytes(marks)))


def is_one_array_under_one_key(marks: bytes) -> bool:
    if not marks.startswith(b"{:["):
        return False
    depth = 1
    for index, mark in enumerate(marks[2:]):
        depth += (mark in b"[{") - (mark in b"]}")
        if depth == 1:
            return marks[2 + index + 1 :] == b"}"
    return False


def pieces(document: bytes, cuts: list[int]) -> Iterator[bytes]:
    bounds = [0, *sorted(cut % (len(document) + 1) for cut in cuts), len(document)]
    return (document[start:end] for start, end in pairwise(bounds))


def sized(document: bytes, size: int) -> Iterator[bytes]:
    return (document[start : start + size] for start in range(0, len(document), size))


def fed(chunks: Iterator[bytes]) -> JsonLimits:
    structure = JsonLimits()
    for chunk in chunks:
        structure.feed(chunk)
    return structure


def accepts(chunks: Iterator[bytes]) -> bool:
    try:
        fed(chunks).finish()
    except BadFile:
        return False
    return True


TEXTS = st.text(st.sampled_from('":[]{}\\ax\n\u00e9\U0001f600/u'), max_size=8)
VALUES: st.SearchStrategy[Any] = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=25,
)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    value = draw(st.dictionaries(TEXTS, st.lists(VALUES, max_size=4), min_size=1, max_size=1) | VALUES)
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    return text.encode()


CUTS = st.lists(st.integers(0, 10_000), max_size=6)


@settings(max_examples=500, deadline=None)
@given(documents(), CUTS)
@example(b'{"a":[{"k":":::",":::":"x"}]}', [])
@example(b'{"a":[{"a:":"","":":b"}]}', [])
def test_keys_shape_and_elements_agree_with_a_plain_scanner(document: bytes, cuts: list[int]) -> None:
    scanned = scan(document)
    structure = fed(pieces(document, cuts))
    assert structure.keys == scanned.keys
    assert accepts(pieces(document, cuts)) == scanned.is_one_array
    if scanned.is_one_array:
        (elements,) = json.loads(document).values()
        assert structure.elements == len(elements)


def test_keys_are_counted_right_wherever_chunks_end() -> None:
    ways = [[NASTY[:cut], NASTY[cut:]] for cut in range(len(NASTY) + 1)]
    for chunks in ways + [list(sized(NASTY, size)) for size in range(1, 40)]:
        structure = fed(iter(chunks))
        structure.finish()
        assert structure.keys == scan(NASTY).keys
        assert structure.elements == len(json.loads(NASTY)["vehicle_status"])


@pytest.mark.parametrize("size", [1, 2, 3, 7, CHUNK])
@pytest.mark.parametrize(
    ("array", "elements"),
    [
        (b"", 0),
        (b" \n ", 0),
        (b"5", 1),
        (b" null ", 1),
        (b'"]"', 1),
        (b'","', 1),
        (b"[]", 1),
        (b"{}", 1),
        (b"1,2,3", 3),
        (b'"",",",""', 3),
        (b'[1,2,3],{"a":[1,[2,3]],"b":{},"c":","},[]', 3),
        (b'{"a":1,"b":2},' * 9 + b"[[[]],[]]", 10),
    ],
)
def test_elements_of_the_array_are_counted(array: bytes, elements: int, size: int) -> None:
    for key in (b"vehicle_status", rb"a[\"[", b"]"):
        structure = fed(sized(b' { "%b" : [%b] } ' % (key, array), size))
        structure.finish()
        assert structure.elements == elements


@pytest.mark.parametrize("size", [1, 7, CHUNK])
@pytest.mark.parametrize(("byte", "name"), [(b"\v", "vertical tab"), (b"\f", "form feed")])
def test_bytes_that_are_not_white_space_of_json_are_refused(byte: bytes, name: str, size: int) -> None:
    with pytest.raises(BadFile, match=f"got a {name} at byte 7"):
        fed(sized(b'{"a":[ ' + byte + b"]}", size))


@pytest.mark.parametrize("size", [1, 2, 3, 7, CHUNK])
@pytest.mark.parametrize(
    "document",
    [
        rb'{"a":[],"b":[]}',
        rb'{"a":[{}],"a":[{}]}',
        rb'{"a":{"item":[{}]}}',
        rb'{"a":{}}',
        rb'{"a":1}',
        rb'{"a":"[]"}',
        rb'{"a":[{}],"b":1}',
        rb'{"b":1,"a":[{}]}',
        rb"[[]]",
        rb'[{"a":[]}]',
        rb'{"a":[]}{"a":[]}',
        rb'{"a":[]}[]',
        rb"{}",
        rb'"{:[]}"',
        rb"",
    ],
)
def test_documents_that_are_not_one_array_under_one_key_are_refused(document: bytes, size: int) -> None:
    assert not accepts(sized(document, size))


@pytest.mark.parametrize("size", [1, 2, 3, 7, CHUNK])
@pytest.mark.parametrize(
    "document",
    [
        rb'{"a":[]}',
        rb' { "a.item" : [ ] } ',
        rb'{"":[1,"]}",[[]],{"item":{}}]}',
        rb'{"\":[":[{}]}',
        b'{"a":[{}]}' + b"\n" * 1000,
    ],
)
def test_one_array_under_one_key_is_accepted(document: bytes, size: int) -> None:
    assert accepts(sized(document, size))


def nested(opening: list[str], levels: int) -> bytes:
    """A document with this number of levels, and a neighbour on each side."""
    chosen = [opening[level % len(opening)] for level in range(levels - 2)]
    closing = "".join("]" if text == "[" else "}" for text in reversed(chosen))
    return ('{"a":[[],' + "".join(chosen) + closing + ',{"b":[{}]}]}').encode()


@pytest.mark.parametrize("opening", [["["], ['{"k":'], ["[", '{"k":'], ["[", "[", '{"k":']])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 50, 100, CHUNK])
def test_the_depth_limit_is_exact(opening: list[str], size: int) -> None:
    if opening[-1] != "[":
        opening = [*opening[:-1], opening[-1].replace("k", "long key")]
    deepest, deeper = nested(opening, MAX_DEPTH), nested(opening, MAX_DEPTH + 1)
    assert (scan(deepest).deepest, scan(deeper).deepest) == (MAX_DEPTH, MAX_DEPTH + 1)
    assert accepts(sized(deepest, size))
    assert not accepts(sized(deeper, size))


@settings(max_examples=200, deadline=None)
@given(st.integers(50, 66), VALUES, CUTS)
def test_depth_agrees_with_a_plain_scanner(levels: int, value: Any, cuts: list[int]) -> None:
    inner = json.dumps(value)
    document = f'{{"a":[{"[" * levels}{inner},{inner}{"]" * levels}]}}'.encode()
    assert accepts(pieces(document, cuts)) == (scan(document).deepest <= MAX_DEPTH)


def test_depth_is_limited_behind_the_array_too() -> None:
    with pytest.raises(BadFile, match="levels of nesting"):
        fed(iter((b'{"a":[]', b',"b":' + b"[" * 100)))


LONG = MAX_ELEMENT_BYTES + 2 * CHUNK
LONG_TEXT = b'"' + b"x" * LONG + b'"'


@pytest.mark.parametrize(
    "document",
    [
        b'{"a":[' + LONG_TEXT + b"]}",
        b'{"a":[1,{"b":' + LONG_TEXT + b"}]}",
        b'{"a":[{"b":[' + b"{}," * (LONG // 3) + b"{}]}]}",
        b'{"a":[{"b":"' + rb"\"" * (LONG // 2) + b'"}]}',
        b"{" + LONG_TEXT + b":[]}",
        b'{"a":[],' + LONG_TEXT + b":1}",
        LONG_TEXT,
    ],
    ids=["text", "field", "list", "quotes", "key", "behind", "alone"],
)
def test_a_longer_element_is_refused(document: bytes) -> None:
    with pytest.raises(BadFile, match=f"at most {MAX_ELEMENT_BYTES} bytes"):
        fed(sized(document, CHUNK))


@pytest.mark.parametrize("offset", [0, 1, CHUNK - 20, CHUNK - 1])
def test_elements_up_to_the_limit_are_accepted_side_by_side(offset: int) -> None:
    element = b'{"a":"' + b"x" * (MAX_ELEMENT_BYTES - 8) + b'"}'
    assert len(element) == MAX_ELEMENT_BYTES
    assert accepts(sized(b'{"a":[' + b" " * offset + element + b"," + element + b"]}", CHUNK))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "filling", [rb"\n" + b"x" * 60_000, rb"\"" * 30_000, rb"\\" * 30_000], ids=["x", "quote", "backslash"]
)
def test_a_chunk_that_ends_in_a_string_takes_no_longer_for_an_escape(filling: bytes) -> None:
    chunks = [b'{"a":[{"b":"\\n', filling, filling, b'"}]}']
    assert fed(iter(chunks)).keys == 2


@pytest.mark.parametrize(
    ("text", "is_whole"),
    [
        (rb"\ud83d\ude00", True),
        (rb"\uD83D\uDE00", True),
        (rb"\ud83d\ude00\ud83d\ude00", True),
        (rb"\\ud800", True),
        (rb"\\\\ude00", True),
        (rb"\ud7ff\ue000", True),
        (rb"\"\\\/\b\f\n\r\t\u0041", True),
        ("\U0001f600".encode(), True),
        (rb"\ud83d", False),
        (rb"\ude00", False),
        (rb"\ude00\ud83d", False),
        (rb"\ud83d\ud83d\ude00", False),
        (rb"\ud83d\ude00\ude00", False),
        (rb"\ud83dx\ude00", False),
        (rb"\ud83d\n\ude00", False),
        (rb"\ud83d\\ude00", False),
        (rb"\\\ud800", False),
        (rb"\uDBFF", False),
        (rb"\uDFFF", False),
    ],
)
@pytest.mark.parametrize(
    "frame", [b'{"a":["%b"]}', b'{"a":["%b,and more of it"]}', b'{"a":[{"%b":1}]}', b'{"%b":[]}']
)
def test_half_of_a_surrogate_pair_is_refused_wherever_chunks_end(
    frame: bytes, text: bytes, is_whole: bool
) -> None:
    document = frame % text
    for cut in range(len(document) + 1):
        assert accepts(pieces(document, [cut])) == is_whole
    for size in range(1, 16):
        assert accepts(sized(document, size)) == is_whole


TOKENS = [
    r"\ud83d",
    r"\uDBFF",
    r"\ude00",
    r"\udc00",
    r"\\",
    r"\n",
    r"\u0041",
    r"\"",
    "ud800",
    "x",
    "\U0001f600",
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=12), CUTS)
def test_halves_are_found_as_python_finds_them(tokens: list[str], cuts: list[int]) -> None:
    document = f'{{"a":["{"".join(tokens)}"]}}'
    has_half = any("\ud800" <= character <= "\udfff" for character in json.loads(document)["a"][0])
    assert accepts(pieces(document.encode(), cuts)) == (not has_half)
