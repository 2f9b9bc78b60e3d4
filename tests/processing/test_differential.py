"""Documents by chance, sound and nearly so, against json.loads and the rules written down once more.

Numbers are compared by their decimals: what was written is what is read, whatever else the document holds.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import processing.document
import processing.fast_path
from processing.errors import BadFile, NotReady
from processing.validation import to_json
from tests.processing.support import read

EVENTS, STATUS = "objects_detection_events", "vehicle_status"
FIELDS = {
    EVENTS: ("vehicle_id", "detection_time", "detections"),
    STATUS: ("vehicle_id", "report_time", "status"),
}
TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?([Zz]|[+-]\d\d(:?\d\d)?)", re.ASCII)


class Pairs(list[tuple[str, Any]]):
    """A JSON object, with repeated keys if need be."""


@dataclass
class Expected:
    """What a document should be read as: rows, positions and originals of rejects."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    rejects: list[tuple[int, Any]] = field(default_factory=list)
    extra: Any = None

    @property
    def position(self) -> int:
        return len(self.rows) + len(self.rejects)


# The reference ------------------------------------------------------------------------------------


def expected(content: bytes) -> Expected | None:
    """None: refused as a whole."""
    try:
        document = loaded(content.decode())
    except ValueError:
        return None
    if not isinstance(document, Pairs) or _has_half(document):
        return None
    arrays = [pair for pair in document if pair[0] in FIELDS]
    beside = Pairs(pair for pair in document if pair[0] not in FIELDS)
    if len(arrays) != 1 or _repeats(beside) or _has_nul(beside) or _is_beyond(beside):
        return None
    key, elements = arrays[0]
    if not _is_list(elements):
        return None
    found = Expected(extra=plain(beside) if beside else None)
    for element in elements:
        (_event if key == EVENTS else _report)(found, element)
    return found


def loaded(text: str) -> Any:
    """JSON with its repeated keys and its decimals."""
    return json.loads(
        text, object_pairs_hook=Pairs, parse_float=Decimal, parse_int=_integer, parse_constant=_no_number
    )


def _integer(text: str) -> int | Decimal:
    return int(text) if len(text) < 1000 else Decimal(text)


def _no_number(_: str) -> None:
    raise ValueError


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and not isinstance(value, Pairs)


def _has_half(value: Any) -> bool:
    return bool(re.search("[\ud800-\udfff]", json.dumps(plain(value), ensure_ascii=False, default=str)))


def plain(value: Any) -> Any:
    """Pairs as lists, which compare with repeated keys and all."""
    if isinstance(value, Pairs):
        return {"pairs": sorted(([name, plain(child)] for name, child in value), key=repr)}
    return [plain(child) for child in value] if isinstance(value, list) else value


def _report(found: Expected, element: Any) -> None:
    if not isinstance(element, Pairs) or _repeats(element) or _bad_extra(element, STATUS):
        found.rejects.append((found.position, element))
        return
    values = dict(element)
    row = (_text(values, "vehicle_id"), _time(values, "report_time"), _text(values, "status"))
    if None in row:
        found.rejects.append((found.position, element))
    else:
        found.rows.append((*row, _extra(element, FIELDS[STATUS])))


def _event(found: Expected, element: Any) -> None:
    header = (
        Pairs(pair for pair in element if pair[0] != "detections") if isinstance(element, Pairs) else None
    )
    if header is None or _repeats(header) or _bad_extra(header, EVENTS) or len(element) - len(header) != 1:
        found.rejects.append((found.position, element))
        return
    values = dict(element)
    start = (_text(values, "vehicle_id"), _time(values, "detection_time"))
    if None in start or not _is_list(values["detections"]):
        found.rejects.append((found.position, element))
        return
    for counted in values["detections"]:
        row = _detection(header, counted)
        if row is None:
            found.rejects.append((found.position, Pairs([*header, ("detections", [counted])])))
        else:
            found.rows.append((*start, *row))


def _detection(header: Pairs, counted: Any) -> tuple[Any, ...] | None:
    known = ("object_type", "object_value")
    if not isinstance(counted, Pairs) or _repeats(counted):
        return None
    own = Pairs(pair for pair in counted if pair[0] not in known)
    kind, value = _text(dict(counted), "object_type"), dict(counted).get("object_value")
    value = _integral(value)
    if kind is None or value is None or _has_nul(own) or _is_beyond(own):
        return None
    shared = [pair for pair in header if pair[0] not in FIELDS[EVENTS]]
    taken = dict(own)
    for name, child in shared:
        while name in taken:
            name = f"event.{name}"
        taken[name] = child
    return kind, value, plain(Pairs(taken.items())) if taken else None


def _text(values: dict[str, Any], name: str) -> str | None:
    value = values.get(name)
    return value if isinstance(value, str) and 1 <= len(value) <= 255 and "\0" not in value else None


def _time(values: dict[str, Any], name: str) -> datetime | None:
    value = values.get(name)
    if not isinstance(value, str) or not TIME.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _integral(value: Any) -> int | None:
    """The value if it is an integer of 32 bits, however it is spelled."""
    is_number = type(value) is int or isinstance(value, Decimal)
    is_integer = is_number and -(2**31) <= value < 2**31 and value % 1 == 0
    return int(value) if is_integer else None


def _repeats(value: Any) -> bool:
    if isinstance(value, Pairs):
        names = [name for name, _ in value]
        return len(set(names)) < len(names) or any(_repeats(child) for _, child in value)
    return isinstance(value, list) and any(map(_repeats, value))


def _has_nul(value: Any) -> bool:
    return r"\u0000" in json.dumps(plain(value), default=str).replace(r"\\", "")


def _is_beyond(value: Any) -> bool:
    """Whether it holds a number with more digits than jsonb takes."""
    if isinstance(value, Pairs):
        return any(_is_beyond(child) for _, child in value)
    if isinstance(value, list):
        return any(map(_is_beyond, value))
    if not isinstance(value, Decimal) or not value:
        return False
    return value.adjusted() >= 131_072 or int(value.as_tuple().exponent) < -16_383


def _bad_extra(element: Pairs, key: str) -> bool:
    unknown = Pairs(pair for pair in element if pair[0] not in FIELDS[key])
    return _has_nul(unknown) or _is_beyond(unknown)


def _extra(element: Pairs, known: tuple[str, ...]) -> Any:
    unknown = Pairs(pair for pair in element if pair[0] not in known)
    return plain(unknown) if unknown else None


# Documents ----------------------------------------------------------------------------------------

#: A byte that is put in may make them others: so none of them is zero with more places than a decimal has.
SPELLINGS = [
    *[
        "0.10000000000000001",
        "48.12345678901234567",
        "1.10",
        "1.1",
        "-0",
        "-0.0",
        "1E5",
        "1e5",
        "1e-400",
        "1e400",
    ],
    *[
        "0.0e-99999",
        "0E99999",
        "1e131071",
        "1e131072",
        "1.5e-16382",
        "1e-16384",
        "-1e200000",
        "1e-99999",
        "1e22",
    ],
    *[
        "12345678901234567890.5",
        "1" * 700,
        "-" + "9" * 5_000,
        "0." + "3" * 700,
        "0.30",
        "5e-324",
        "1e999999999",
    ],
]


class Spelled(float):
    """A number that json.dumps() writes as it is spelled here."""

    def __new__(cls, spelling: str) -> "Spelled":
        made = super().__new__(cls)
        made.spelling = spelling
        return made

    spelling: str


KEYS = st.sampled_from(["a", "b", "", ":", '"', "\\", "\u00e9", "event.a", "status", "object_type", "n\0"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        [0, -1, 2**31 - 1, 2**31, -(2**31) - 1, 2**63, -(2**63), 2**64, 10**40, 2.0, -1.5, 1e300]
    ),
    st.sampled_from(SPELLINGS).map(Spelled),
    st.sampled_from(["", "x", "a\0", "]}", '":{', "\\", "\U0001f600", "\ud83d", "\ude00x", "x" * 256]),
)


def rare(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 15).flatmap(lambda chance: usual if chance else odd)


@st.composite
def objects(draw: st.DrawFn, /, values: st.SearchStrategy[Any], **known: st.SearchStrategy[Any]) -> Pairs:
    """Mostly the known fields with their values; sometimes more, fewer, others, or one twice."""
    pairs = [(name, draw(rare(value, VALUES))) for name, value in known.items() if draw(st.integers(0, 40))]
    if not draw(st.integers(0, 3)):
        pairs += draw(st.lists(st.tuples(KEYS, values), max_size=2))
    if pairs and not draw(st.integers(0, 15)):
        pairs.append((draw(st.sampled_from(pairs))[0], draw(values)))
    return Pairs(draw(st.permutations(pairs)))


VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | objects(inner), max_leaves=5
)
TEXTS = st.sampled_from(["ebab5f787798416fb2b8afc1340d7a4e", "cars", "x" * 255, "\u00e9", '":', "\U0001f600"])
TIMES = st.one_of(
    st.sampled_from(
        ["2022-06-05T21:02:34.546Z", "2022-06-05t21:02:34+02:00", "2022-06-05 00:00:00.000001-23:59"]
    ),
    st.sampled_from(["2022-06-05T21:02Z", "2022-06-05 21:02+02", "2022-06-05T21:02:34.5-0530"]),
    st.sampled_from(["2022-06-05T23:59:60Z", "2022-06-05T21:02", "2022-W22-7T21:02Z", "2022-06-05T25:00Z"]),
    st.sampled_from(["0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "2022-06-05T21:02:34", "now"]),
)
COUNTS = rare(st.integers(-5, 5), st.sampled_from(["3.0", "1e1", "-20E-1", "2.5", "1e-400"]).map(Spelled))
COUNTED = objects(SCALARS, object_type=TEXTS, object_value=COUNTS)
EVENT = objects(
    SCALARS, vehicle_id=TEXTS, detection_time=TIMES, detections=st.lists(rare(COUNTED, VALUES), max_size=3)
)
REPORT = objects(SCALARS, vehicle_id=TEXTS, report_time=TIMES, status=TEXTS)
DOCUMENTS = st.one_of(
    st.lists(rare(EVENT, VALUES), max_size=4).map(lambda elements: Pairs([(EVENTS, elements)])),
    st.lists(rare(REPORT, VALUES), max_size=4).map(lambda elements: Pairs([(STATUS, elements)])),
)
SURROUNDED = st.tuples(
    st.lists(st.tuples(KEYS, VALUES), max_size=2), DOCUMENTS, st.lists(st.tuples(KEYS, VALUES), max_size=2)
).map(lambda parts: Pairs([*parts[0], *parts[1], *parts[2]]))
SHAPES = rare(
    DOCUMENTS | SURROUNDED,
    VALUES | st.tuples(DOCUMENTS, DOCUMENTS).map(lambda two: Pairs([*two[0], *two[1]])),
)


def rendered(value: Any, escaped: bool, blank: str) -> str:
    if isinstance(value, Pairs):
        pairs = (f"{rendered(n, escaped, blank)}:{blank}{rendered(v, escaped, blank)}" for n, v in value)
        return "{" + f",{blank}".join(pairs) + blank + "}"
    if isinstance(value, list):
        return f"[{blank}" + f"{blank},".join(rendered(child, escaped, blank) for child in value) + "]"
    if isinstance(value, Spelled):
        return value.spelling
    has_half = isinstance(value, str) and re.search("[\ud800-\udfff]", value)
    return json.dumps(value, ensure_ascii=bool(escaped or has_half))


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Text of a document; sometimes a byte is lost, changed or put in."""
    blank = draw(st.sampled_from(["", " ", "\n", "\r\n\t", " " * 150]))
    text = rendered(draw(SHAPES), draw(st.booleans()), blank).encode()
    if not draw(st.integers(0, 4)):
        at = draw(st.integers(0, len(text)))
        byte = draw(st.sampled_from([b"", b"\xff", *(bytes([byte]) for byte in b'"\\{}[],:1 \0\f\v')]))
        text = text[:at] + byte + text[at + draw(st.integers(0, 1)) :]
    return text


def _as_pairs(original: Any) -> Any:
    return plain(loaded(to_json(original)))


def found(content: bytes) -> Expected | None:
    try:
        reading = read(content)
    except (BadFile, NotReady):
        return None
    rows = []
    for record in reading.records:
        *values, extra = (getattr(record, name) for name in record.__struct_fields__)
        rows.append((*values, _as_pairs_text(extra)))
    rejects = [(reject.position, _as_pairs(reject.original)) for reject in reading.rejected]
    return Expected(rows, rejects, _as_pairs_text(reading.extra))


def _as_pairs_text(extra: str | None) -> Any:
    return None if extra is None else plain(loaded(extra))


@settings(max_examples=600, deadline=None)
@given(contents(), st.integers(1, 400), st.integers(1, 1000))
def test_a_document_is_read_as_the_rules_say(content: bytes, size: int, longest: int) -> None:
    reference = expected(content)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(processing.fast_path, "WINDOW_BYTES", size)
        patched.setattr(processing.fast_path, "_NEAR_END", size // 2)
        patched.setattr(processing.fast_path, "_MAX_ELEMENT_BYTES", longest)
        patched.setattr(processing.document, "CHUNK_BYTES", max(size, 40))
        ours = found(content)
    if reference is None or ours is None:
        assert reference is ours
        return
    assert (ours.rows, ours.extra) == (reference.rows, reference.extra)
    assert ours.rejects == [(position, plain(original)) for position, original in reference.rejects]
