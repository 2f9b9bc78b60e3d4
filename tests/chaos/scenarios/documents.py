"""Drops random documents, sound and nearly sound ones, and compares what is stored with a reference."""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from random import Random
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.chaos.background import beside
from tests.chaos.rig import Finding, Rig, Trial
from tests.processing.test_differential import EVENTS, STATUS, Expected, contents, expected, loaded, plain
from tests.support import query, until

#: Number of documents in the folder at a time, and of those made from one seed.
_AT_ONCE, _EXAMPLES = 400, 200

#: A vehicle of many documents; each document gets another one instead, so that few keys are shared.
_VEHICLE = b"ebab5f787798416fb2b8afc1340d7a4e"

_MOST_COMPLAINTS = 10

#: One in this many documents has blanks somewhere that are longer than an element that a window may hold.
_STRETCHED, _BLANKS = 50, b" " * 1_050_000
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},:]')

#: Documents by their number.
Documents = dict[int, bytes]

#: A key (vehicle, time and, for a detection, the type), then a value or status, and extra.
Row = tuple[Any, ...]

#: Rows by their key, each with the number of its document.
Stored = dict[Row, tuple[Row, int]]


@dataclass(frozen=True)
class Entry:
    """The database's entry of a document; `rejects` has reason and text by position."""

    state: str = "unknown"
    read: int = 0
    inserted: int = 0
    rejects: dict[int, tuple[str, str]] = field(default_factory=dict)


def random_documents(trial: Trial) -> Finding:
    """Checks documents made by Hypothesis: each is stored as json.loads reads it, or fails with a reason."""
    finding = Finding()
    size = min(_AT_ONCE, trial.volume)
    source = islice(enumerate(_documents(trial)), trial.volume)
    with trial.rig(SETTLE_SECONDS=0.2, RESCAN_SECONDS=0.2) as rig:
        rig.daemon.start()
        documents = dict(islice(source, size))
        with beside(rig.meter.measure):
            for _ in trial.rounds(size):
                _drop(rig, documents)
                coming = dict(islice(source, size))  # takes as long as the daemon does
                until(lambda: not rig.daemon.left(), 60, "all documents have their verdict")
                _judge(rig, documents, finding)
                documents = coming
    return finding


def _documents(trial: Trial) -> Iterator[bytes]:
    """Yields documents without end, each only once."""
    seen: set[int] = set()
    for seed in range(trial.seed, sys.maxsize):
        for content in _made(seed):
            if hash(content) not in seen:
                seen.add(hash(content))
                if len(seen) % _STRETCHED == 0:
                    content = _stretched(content, Random(seed + len(seen)))
                yield content.replace(_VEHICLE, b"%032d" % len(seen))


def _stretched(content: bytes, random: Random) -> bytes:
    """With the blanks before one of its tokens, or behind all."""
    place = random.choice([*(token.start() for token in _TOKEN.finditer(content)), len(content)])
    return content[:place] + _BLANKS + content[place:]


def _made(seed: int) -> list[bytes]:
    made: list[bytes] = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=_EXAMPLES,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(contents())
    def make(content: bytes) -> None:
        made.append(content)

    make()
    return made


def _drop(rig: Rig, documents: Documents) -> None:
    for number, content in documents.items():
        rig.daemon.drop(f"document_{number}.json", content)


def _judge(rig: Rig, documents: Documents, finding: Finding) -> None:
    """Compares what is stored, then empties the tables: else all keys would soon be taken."""
    entries, stored = _entries(rig), _stored(rig)
    finding.counts["rows"] += len(stored)
    wrong = [f"row of no document: {row}" for row, number in stored.values() if number not in documents]
    for number, content in documents.items():
        flaws = _flaws(expected(content), entries.get(number, Entry()), number, stored)
        shown = content.replace(_BLANKS, b"<blanks>")
        wrong += [f"document {number}: {flaw}: {shown!r}" for flaw in flaws]
    wrong += [f"not the latest status: {row}" for row in query(rig.url, _NOT_LATEST)]
    finding.complaints += wrong[: _MOST_COMPLAINTS - len(finding.complaints)]
    query(rig.url, f"TRUNCATE {', '.join(f'mobileye_data.{table}' for table in _TABLES)}")


# Expected -----------------------------------------------------------------------------------------


def _flaws(reference: Expected | None, entry: Entry, number: int, stored: Stored) -> Iterator[str]:
    """Yields each difference between what is stored of a document and its reference."""
    if reference is None:
        if entry != Entry("failed"):
            yield f"{entry} instead of failed"
        return
    if (entry.state, entry.read) != ("loaded", reference.position):
        yield f"{entry} instead of {reference.position} records"
    rows = [_exact_row(row) for row in reference.rows]
    own = [row for row, owner in stored.values() if owner == number]
    if entry.inserted != len(own):
        yield f"{entry.inserted} rows inserted, but {len(own)} are there"
    yield from (f"unexpected row: {row}" for row in own if row not in rows)
    yield from _record_flaws(rows, dict(reference.rejects), entry, stored)


def _record_flaws(rows: list[Row], flawed: dict[int, Any], entry: Entry, stored: Stored) -> Iterator[str]:
    """Yields each wrong record: a flawed one must be rejected unchanged, a sound one is the next row."""
    sound = iter(rows)
    for position in range(len(rows) + len(flawed)):
        reject = entry.rejects.get(position)
        if position in flawed:
            if reject is None or not _is_rejected(flawed[position], *reject):
                yield f"record {position}: {reject} instead of invalid"
        elif not _is_kept(row := next(sound), reject, stored):
            yield f"record {position}: {reject}, {stored.get(row[:-2])} instead of {row}"


def _is_rejected(original: Any, reason: str, text: str) -> bool:
    return reason == "invalid" and _exact(_loaded(text)) == _exact(plain(original))


def _is_kept(row: Row, reject: tuple[str, str] | None, stored: Stored) -> bool:
    """Returns whether a row is stored, or was rejected as a conflict or by PostgreSQL."""
    there, _ = stored.get(row[:-2], (None, 0))
    if reject is None:
        return there == row
    reason, text = reject
    is_taken = there is not None and there != row
    return _read_alone(text, row) == [row] and (reason == "refused" or (reason == "conflict" and is_taken))


def _read_alone(text: str, like: Row) -> list[Row]:
    """Returns the rows of a document that holds only this record."""
    key = EVENTS if len(like) == _DETECTION_COLUMNS else STATUS
    reference = expected(f'{{"{key}": [{text}]}}'.encode())
    return [_exact_row(row) for row in reference.rows] if reference else []


def _exact_row(row: Row) -> Row:
    return (*row[:-1], _exact(row[-1]))


def _exact(value: Any) -> Any:
    """Makes a value comparable: 1.5 equals 1.50, since jsonb rewrites numbers, but 1 does not equal true."""
    if isinstance(value, dict | list):
        children = value.items() if isinstance(value, dict) else enumerate(value)
        return [type(value), *((key, _exact(child)) for key, child in children)]
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return value
    return "number", Decimal(value)


def _loaded(text: str | None) -> Any:
    return None if text is None else plain(loaded(text))


# Stored -------------------------------------------------------------------------------------------


def _entries(rig: Rig) -> dict[int, Entry]:
    files = query(
        rig.url, f"SELECT {_NUMBER}, state, rows_read, rows_inserted FROM mobileye_data.ingested_files"
    )
    rejects: defaultdict[int, dict[int, tuple[str, str]]] = defaultdict(dict)
    for number, position, reason, original in query(
        rig.url,
        f"SELECT {_NUMBER}, position, reason, original::text FROM mobileye_data.rejected_records {_JOIN}",
    ):
        rejects[number][position] = reason, original
    return {number: Entry(state, read, new, rejects[number]) for number, state, read, new in files}


def _stored(rig: Rig) -> Stored:
    found = {}
    for table, columns in _COLUMNS.items():
        for *row, extra, number in query(
            rig.url, f"SELECT {columns}, {table}.extra::text, {_NUMBER} FROM mobileye_data.{table} {_JOIN}"
        ):
            found[tuple(row[:-1])] = (*row, _exact(_loaded(extra))), number
    return found


_NUMBER = "coalesce(substring(name FROM '[0-9]+')::integer, -1)"
_JOIN = "LEFT JOIN mobileye_data.ingested_files USING (file_id)"

_COLUMNS = {
    "objects_detection_events": "vehicle_id, detection_time, object_type, object_value",
    "vehicle_status_history": "vehicle_id, report_time, status",
}
_DETECTION_COLUMNS = 5

_TABLES = (*_COLUMNS, "vehicle_status", "ingested_files", "rejected_records")

_LATEST = "vehicle_id, report_time, status, extra, file_id"
_NOT_LATEST = f"""
    (SELECT {_LATEST} FROM mobileye_data.vehicle_status)
    EXCEPT
    (SELECT DISTINCT ON (vehicle_id) {_LATEST} FROM mobileye_data.vehicle_status_history
     ORDER BY vehicle_id, report_time DESC)
"""
