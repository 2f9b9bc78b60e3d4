"""Batches of files through a real Processor into a real PostgreSQL, read back through SQL."""

import errno
import gzip
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from io import BufferedWriter
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import psycopg2
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import json

import db.chunk
import db.conflicts
import db.session
import db.writer
import processing.document
import processing.fast_path
import processing.loader
from db import ledger, schema
from db.connection import Database
from db.ledger import Entry
from db.sink import PostgresSink, PostgresTransaction
from processing.batch import FileTask, Outcome
from processing.document import Document
from processing.errors import DatabaseUnavailable, Misconfigured, TryAgain
from processing.fast_path import FastPath
from processing.loader import Loader
from processing.records import Parsed
from sources.folder import FolderSource
from sources.local_file import LocalFile
from sources.policy import OnLoaded
from tests.support import VEHICLE, Server, detections, drop, event, query, report, statuses

D, S = "objects_detection_", "vehicles_status_"
EVENTS, HISTORY = "objects_detection_events", "vehicle_status_history"
TABLES = (EVENTS, HISTORY, "vehicle_status", "ingested_files", "rejected_records")
GIGABYTE = 1024**3
T = TypeVar("T")

#: Hypothesis calls a test many times with one fixture; each such test empties the tables itself.
fuzz = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Drops:
    """A drop folder and the processor that loads it into a database."""

    def __init__(
        self, folder: Path, database: Database, max_bytes: int = GIGABYTE, max_reject_ratio: float = 1.0
    ) -> None:
        self.incoming = folder / "incoming"
        self.failed = self.incoming / "failed"
        self.incoming.mkdir(exist_ok=True)
        self.database = database
        self.sink = PostgresSink(database)
        source = FolderSource(str(self.incoming), str(self.failed), "", OnLoaded.DELETE)
        self.processor = Loader(source, self.sink, max_bytes, max_reject_ratio)

    def load(self, **files: bytes) -> list[Outcome]:
        """One batch; the arguments are names without .json."""
        return self.load_named({f"{name}.json": content for name, content in files.items()})

    def load_named(self, files: dict[str, bytes]) -> list[Outcome]:
        for name, content in files.items():
            drop(self.incoming, name, content)
        return self.processor.load([FileTask(name) for name in files])

    def load_one(self, name: str, content: bytes, **work: Any) -> Outcome:
        drop(self.incoming, name, content)
        (outcome,) = self.processor.load([FileTask(name, **work)])
        return outcome

    def load_until_done(self, files: dict[str, bytes]) -> list[Outcome]:
        """One batch, then those alone that could not share it, as the daemon does."""
        outcomes = self.load_named(files)
        alone = [outcome.name for outcome in outcomes if outcome.state == "retry_alone"]
        done = [outcome for outcome in outcomes if outcome.state != "retry_alone"]
        return done + [outcome for name in alone for outcome in self.processor.load([FileTask(name)])]

    def rows(self, statement: str, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        return query(self.database.url, f"SET search_path = mobileye_data; {statement}", values)

    def values(self, statement: str) -> list[Any]:
        """The first column."""
        return [value for value, *_ in self.rows(statement)]

    def count(self, table: str) -> int:
        return int(self.values(f"SELECT count(*) FROM {table}")[0])

    def left(self) -> list[str]:
        return sorted(
            entry.name for entry in os.scandir(self.incoming) if not entry.is_dir(follow_symlinks=False)
        )

    def clear(self) -> None:
        self.rows("".join(f"DELETE FROM {table};" for table in TABLES))


@pytest.fixture(scope="module")
def shared_database(server: Server) -> Iterator[Database]:
    """Emptied for each test, which is quicker than a new one."""
    with server.database() as database:
        with closing(database.connect()) as connection:
            schema.apply(connection)
        yield database


@pytest.fixture
def drops(tmp_path: Path, shared_database: Database) -> Iterator[Drops]:
    drops = Drops(tmp_path, shared_database)
    drops.clear()
    yield drops
    drops.sink.close()


@pytest.fixture
def own_loader(tmp_path: Path, database: Database) -> Iterator[Drops]:
    """For a test that changes more of its database than the rows."""
    drops = Drops(tmp_path, database)
    yield drops
    drops.sink.close()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and texts so small that a handful of rows takes every path."""
    monkeypatch.setattr(db.chunk, "CHUNK_ROWS", 4)
    monkeypatch.setattr(db.writer, "COPY_ROWS", 3)
    monkeypatch.setattr(db.conflicts, "_MANY_ROWS", 2)
    monkeypatch.setattr(db.conflicts, "_SPARSE", 0.5)
    monkeypatch.setattr(processing.fast_path, "WINDOW_BYTES", 300)
    monkeypatch.setattr(processing.document, "CHUNK_BYTES", 300)
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", 1000)


def states(outcomes: Iterable[Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes]


def counts(outcome: Outcome) -> tuple[int, int, int, int]:
    """Read, inserted, duplicate, rejected."""
    found = outcome.counts
    return found.read, found.inserted, found.duplicate, found.rejected


def many_reports(count: int, **more: Any) -> list[dict[str, Any]]:
    return [report(i % 3600, vehicle=f"car-{i // 3600}", **more) for i in range(count)]


# The same file again ---------------------------------------------------------------------------------


def test_a_file_becomes_rows_and_is_gone(drops: Drops) -> None:
    (outcome,) = drops.load(objects_detection_1=detections(event(1), event(2, ("trucks", 7))))
    assert outcome.state == "loaded"
    assert outcome.kind == "objects_detection"
    assert counts(outcome) == (3, 3, 0, 0)
    assert drops.rows(
        f"SELECT vehicle_id, detection_time::text, object_type, object_value FROM {EVENTS} ORDER BY 2, 3"
    ) == [
        (VEHICLE, "2022-06-05 21:00:01.546+00", "cars", 2),
        (VEHICLE, "2022-06-05 21:00:01.546+00", "pedestrians", 3),
        (VEHICLE, "2022-06-05 21:00:02.546+00", "trucks", 7),
    ]
    assert drops.left() == []


def test_the_ledger_knows_the_file_by_its_bytes(drops: Drops) -> None:
    content = statuses(report(1), report(1), report(1, "parking"), {"no": "report"})
    drops.load(vehicles_status_1=content)
    columns = "sha256, name, size, kind, state, rows_read, rows_inserted, rows_duplicate, rows_rejected"
    ((digest, *entry),) = drops.rows(f"SELECT {columns} FROM ingested_files")
    assert bytes(digest) == hashlib.sha256(content).digest()
    assert entry == ["vehicles_status_1.json", len(content), "vehicles_status", "loaded", 4, 1, 1, 2]


def test_the_ledger_knows_when_it_was(drops: Drops) -> None:
    drops.load(vehicles_status_1=statuses(report()))
    assert drops.rows(
        "SELECT started_at <= finished_at, age(finished_at) < '1min', error FROM ingested_files"
    ) == [(True, True, None)]


@pytest.mark.parametrize("again", ["objects_detection_1.json", "objects_detection_2.json", "other.json"])
def test_the_same_bytes_again_are_a_duplicate_under_any_name(drops: Drops, again: str) -> None:
    drops.load(objects_detection_1=detections(event()))
    outcome = drops.load_one(again, detections(event()))
    assert (outcome.state, counts(outcome)) == ("duplicate", (0, 0, 0, 0))
    assert drops.rows("SELECT deliveries, name, last_name FROM ingested_files") == [
        (2, "objects_detection_1.json", again)
    ]
    assert drops.count(EVENTS) == 2
    assert drops.left() == []


def test_the_same_bytes_thrice_in_one_batch_are_loaded_once_and_counted_thrice(drops: Drops) -> None:
    content = detections(event())
    outcomes = drops.load(objects_detection_1=content, objects_detection_2=content, x=content)
    assert states(outcomes) == ["loaded", "duplicate", "duplicate"]
    assert drops.rows("SELECT deliveries, name, last_name, rows_inserted FROM ingested_files") == [
        (3, "objects_detection_1.json", "x.json", 2)
    ]
    assert drops.count(EVENTS) == 2
    assert drops.left() == []


def test_bytes_that_are_bad_under_one_name_are_loaded_under_another(drops: Drops) -> None:
    content = detections(event())
    outcomes = drops.load(vehicles_status_1=content, objects_detection_1=content)
    assert states(outcomes) == ["failed", "loaded"]
    assert drops.values("SELECT state FROM ingested_files") == ["loaded"]


def test_a_large_file_again_is_a_duplicate(drops: Drops, tiny: None) -> None:
    content = statuses(*many_reports(50))
    assert drops.load(vehicles_status_1=content)[0].counts.inserted == 50
    assert states(drops.load(vehicles_status_2=content)) == ["duplicate"]
    assert drops.rows("SELECT deliveries, last_name FROM ingested_files") == [(2, "vehicles_status_2.json")]


def test_a_file_that_could_not_be_removed_is_removed_later_unread_unless_it_has_changed(
    drops: Drops, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = [FileTask("vehicles_status_1.json"), FileTask("vehicles_status_2.json")]
    for second, work in enumerate(works):
        drop(drops.incoming, work.name, statuses(report(second)))
    with monkeypatch.context() as patch:
        patch.setattr("sources.disposal.os.rename", refuse)
        stuck, other = drops.processor.load(works)
    assert states([stuck, other]) == ["loaded", "loaded"] and stuck.undisposed and other.undisposed
    (drops.incoming / "vehicles_status_2.json").write_bytes(statuses(report(2)))
    outcomes = drops.processor.load([again(stuck), again(other)])
    assert states(outcomes) == ["duplicate", "loaded"] and drops.left() == []
    assert drops.values("SELECT deliveries FROM ingested_files") == [1, 1, 1]


def test_a_bad_file_that_could_not_be_moved_is_moved_later_unread_unless_it_has_changed(
    drops: Drops, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = [FileTask("vehicles_status_1.json"), FileTask("vehicles_status_2.json")]
    for work in works:
        drop(drops.incoming, work.name, work.name.encode())
    with monkeypatch.context() as patch:
        patch.setattr("sources.disposal._sync_folder", fail)  # it is moved there and back
        stuck, other = drops.processor.load(works)
        patch.setattr("sources.local_file.LocalFile.digest", only_of("vehicles_status_2.json"))
        (stuck,) = drops.processor.load([again(stuck)])
    assert states([stuck, other]) == ["waiting", "waiting"]
    assert stuck.reason.endswith("it can't be moved: Input/output error")
    (drops.incoming / "vehicles_status_2.json").write_bytes(statuses(report(2)))
    with monkeypatch.context() as patch:
        patch.setattr("sources.local_file.LocalFile.digest", only_of("vehicles_status_2.json"))
        outcomes = drops.processor.load([again(stuck), again(other)])
    assert states(outcomes) == ["failed", "loaded"] and drops.left() == []
    assert outcomes[0].undisposed is None and stuck.reason.startswith(outcomes[0].reason)
    assert drops.rows("SELECT deliveries, last_name FROM ingested_files ORDER BY file_id") == [
        (1, "vehicles_status_1.json"),
        (1, "vehicles_status_2.json"),
        (1, "vehicles_status_2.json"),
    ]


def again(outcome: Outcome) -> FileTask:
    return FileTask(outcome.name, undisposed=outcome.undisposed)


def fail(folder: str) -> None:
    raise OSError(errno.EIO, "Input/output error")


def only_of(name: str) -> Callable[[LocalFile], None]:
    digest = LocalFile.digest

    def checked(source: LocalFile) -> None:
        assert source.name == name
        digest(source)

    return checked


def refuse(source: str, target: str) -> None:
    raise PermissionError(errno.EPERM, "not now")


# The same record again -------------------------------------------------------------------------------

#: How two documents reach the tables: in one file (large or small), one batch, or one after the other.
Way = Callable[[Drops, list[Any], list[Any], Callable[..., bytes], str], None]


def in_one_file(drops: Drops, first: list[Any], second: list[Any], document: Any, prefix: str) -> None:
    drops.load_until_done({f"{prefix}1.json": document(*first, *second)})


def in_one_batch(drops: Drops, first: list[Any], second: list[Any], document: Any, prefix: str) -> None:
    drops.load_until_done({f"{prefix}1.json": document(*first), f"{prefix}2.json": document(*second) + b"\n"})


def in_two_batches(drops: Drops, first: list[Any], second: list[Any], document: Any, prefix: str) -> None:
    drops.load_until_done({f"{prefix}1.json": document(*first)})
    drops.load_until_done({f"{prefix}2.json": document(*second) + b"\n"})


ways = pytest.mark.parametrize("way", [in_one_file, in_one_batch, in_two_batches])
sizes = pytest.mark.parametrize("others", [0, 150, 12_000])  # execute_values, COPY, several chunks
CASES = {
    "detection": (detections, D, event(1, ("cars", 2)), event(1, ("cars", 9)), "object_value=2 extra=null"),
    "detection's extra": (
        detections,
        D,
        event(1, ("cars", 2), lane=1),
        event(1, ("cars", 2), lane=2),
        'object_value=2 extra={"lane": 1}',
    ),
    "extra that is new": (
        detections,
        D,
        event(1, ("cars", 2)),
        event(1, ("cars", 2), lane=2),
        "object_value=2 extra=null",
    ),
    "status": (statuses, S, report(1), report(1, "accident"), "status=driving extra=null"),
    "status's extra": (statuses, S, report(1, km=5), report(1), 'status=driving extra={"km": 5}'),
}
conflicts = pytest.mark.parametrize(
    ("document", "prefix", "first", "second", "stored"), CASES.values(), ids=CASES.keys()
)


def filler(document: Callable[..., bytes], count: int) -> list[Any]:
    if document is statuses:
        return [report(i % 3600, vehicle=f"other-{i // 3600}") for i in range(count)]
    return [event(i % 3600, ("signs", i), vehicle=f"other-{i // 3600}") for i in range(count)]


def everything(drops: Drops) -> list[Any]:
    """The tables' content, as text."""
    return [drops.rows(f"SELECT t::text FROM {table} t ORDER BY 1") for table in TABLES[:3]]


@pytest.mark.usefixtures("small_chunks")
@ways
@sizes
@pytest.mark.parametrize("kind", ["detection", "status's extra"])
def test_the_same_record_again_is_a_duplicate_row(drops: Drops, way: Way, others: int, kind: str) -> None:
    document, prefix, record, *_ = CASES[kind]
    way(drops, [record, *filler(document, others)], [record], document, prefix)
    assert drops.rows(
        "SELECT sum(rows_read), sum(rows_inserted), sum(rows_duplicate) FROM ingested_files"
    ) == [(others + 2, others + 1, 1)]
    assert drops.count(EVENTS) + drops.count(HISTORY) == others + 1


def check_conflict(
    drops: Drops, document: Callable[..., bytes], second: Any, stored: str, inserted: int
) -> None:
    ((reason, detail, original),) = drops.rows("SELECT reason, detail, original FROM rejected_records")
    assert (reason, original) == ("conflict", second)
    assert detail == f"Expected the value stored under this key ({stored}), got another"
    assert drops.values("SELECT sum(rows_inserted) FROM ingested_files") == [inserted]
    table, value = (HISTORY, "status") if document is statuses else (EVENTS, "object_value")
    shown = f"concat('{value}=', {value}, ' extra=', coalesce(extra::text, 'null'))"
    assert drops.values(f"SELECT {shown} FROM {table} WHERE vehicle_id = '{VEHICLE}'") == [stored]


@ways
@pytest.mark.parametrize("others", [0, 150])
@conflicts
def test_another_value_under_a_key_is_rejected_and_the_first_stays(
    drops: Drops,
    way: Way,
    others: int,
    document: Callable[..., bytes],
    prefix: str,
    first: Any,
    second: Any,
    stored: str,
) -> None:
    way(drops, [first, *filler(document, others)], [second], document, prefix)
    check_conflict(drops, document, second, stored, others + 1)


@pytest.mark.usefixtures("small_chunks")
@conflicts
def test_another_value_under_a_key_is_rejected_across_chunks(
    drops: Drops, document: Callable[..., bytes], prefix: str, first: Any, second: Any, stored: str
) -> None:
    in_one_file(drops, [first, *filler(document, 12_000)], [second], document, prefix)
    check_conflict(drops, document, second, stored, 12_001)


@conflicts
def test_the_original_of_a_conflict_can_be_loaded_once_the_first_is_gone(
    drops: Drops, document: Callable[..., bytes], prefix: str, first: Any, second: Any, stored: str
) -> None:
    drops.load_named({f"{prefix}1.json": document(first), f"{prefix}2.json": document(second)})
    (original,) = drops.values("SELECT original FROM rejected_records")
    drops.rows(f"DELETE FROM {EVENTS}; DELETE FROM {HISTORY}")
    outcome = drops.load_one(
        f"{prefix}3.json", document(original, report(9) if document is statuses else event(9))
    )
    assert (outcome.state, outcome.counts.rejected) == ("loaded", 0)


def test_a_conflict_tells_which_record_it_was(drops: Drops) -> None:
    drops.load(objects_detection_1=detections(event(1, ("cars", 1))))
    drops.load(objects_detection_2=detections(event(0), event(1, ("signs", 1), ("cars", 2), ("trucks", 3))))
    assert drops.rows("SELECT position, path, original FROM rejected_records") == [
        (3, "$.objects_detection_events[1].detections[1]", event(1, ("cars", 2)))
    ]


def test_a_conflict_behind_a_bad_record_of_its_event_tells_which_record_it_was(drops: Drops) -> None:
    drops.load(objects_detection_1=detections(event(1, ("cars", 1), ("signs", 1))))
    bad: Any = "many"
    drops.load(
        objects_detection_2=detections(
            event(1, ("x", bad), ("cars", 2), ("y", bad), ("signs", 1), ("cars", 3))
        )
    )
    where = "$.objects_detection_events[0].detections"
    assert drops.rows("SELECT position, path, reason, original FROM rejected_records ORDER BY 1") == [
        (0, f"{where}[0].object_value", "invalid", event(1, ("x", bad))),
        (1, f"{where}[1]", "conflict", event(1, ("cars", 2))),
        (2, f"{where}[2].object_value", "invalid", event(1, ("y", bad))),
        (4, f"{where}[4]", "conflict", event(1, ("cars", 3))),
    ]


# The latest status -----------------------------------------------------------------------------------


def test_an_older_report_never_overwrites_a_newer_one(drops: Drops) -> None:
    drops.load(vehicles_status_1=statuses(report(5, "parking")))
    drops.load(vehicles_status_2=statuses(report(4, "accident")))
    assert drops.rows("SELECT status, report_time = '2022-05-05 22:00:05.546Z' FROM vehicle_status") == [
        ("parking", True)
    ]
    assert drops.count(HISTORY) == 2


def test_a_conflict_does_not_change_the_latest_status(drops: Drops) -> None:
    drops.load(vehicles_status_1=statuses(report(5, "parking"), report(5, "accident")))
    drops.load(vehicles_status_2=statuses(report(5, "driving", km=1)))
    assert drops.rows("SELECT status, extra FROM vehicle_status") == [("parking", None)]


REPORTS = st.lists(
    st.builds(
        report,
        st.integers(0, 9),
        vehicle=st.sampled_from(["a", "b", "c"]),
        km=st.integers(0, 1),
    ),
    unique_by=lambda found: (found["vehicle_id"], found["report_time"]),
    min_size=1,
    max_size=12,
)


@pytest.mark.usefixtures("tiny")
@fuzz
@given(st.data())
def test_any_order_and_division_of_reports_gives_the_same_tables(drops: Drops, data: st.DataObject) -> None:
    drops.clear()
    reports = data.draw(REPORTS)
    twice = data.draw(st.permutations(reports + reports[: len(reports) // 2]))
    for number, batch in enumerate(divided(data, twice)):
        files = {f"{S}{number}_{i}.json": statuses(*part) for i, part in enumerate(divided(data, batch))}
        drops.load_until_done(files)
    latest: dict[str, Any] = {}
    for found in sorted(reports, key=lambda found: found["report_time"]):
        latest[found["vehicle_id"]] = (found["report_time"][11:23], found["status"], {"km": found["km"]})
    shown = "to_char(report_time, 'HH24:MI:SS.MS'), status, extra"
    assert {
        row[0]: row[1:] for row in drops.rows(f"SELECT vehicle_id, {shown} FROM vehicle_status")
    } == latest
    assert drops.count(HISTORY) == len(reports)
    assert drops.count("rejected_records") == 0


def divided(data: st.DataObject, items: list[Any]) -> list[list[Any]]:
    """The items in order, cut somewhere."""
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(items) - 1)), max_size=3)))
    return [items[a:b] for a, b in zip([0, *cuts], [*cuts, len(items)], strict=True) if items[a:b]]


# What a record may hold ------------------------------------------------------------------------------


def test_unknown_fields_are_kept_in_extra(drops: Drops) -> None:
    counted = {"object_type": "cars", "object_value": 1, "lane": [1, {"x": None}]}
    drops.load(objects_detection_1=detections({**event(), "detections": [counted], "fw": "1.2 \\ \t 🚗"}))
    assert drops.values(f"SELECT extra FROM {EVENTS}") == [{"lane": [1, {"x": None}], "fw": "1.2 \\ \t 🚗"}]
    drops.load(vehicles_status_1=statuses(report(driver={"name": "\n"})))
    assert drops.values("SELECT extra FROM vehicle_status") == [{"driver": {"name": "\n"}}]


@pytest.mark.parametrize("copies", [1, 200])
def test_any_text_comes_back_as_it_was(drops: Drops, copies: int) -> None:
    text = "\\N \\. \t\n\r\b\f\v'\" %s {} 🚗 é ¼\x7f\u2028"
    reports = [report(i, text, vehicle=text, note=text) for i in range(copies)]
    for number in (1, 2):  # straight in, then beside what is there
        drops.load_one(
            f"{S}{number}.json", statuses(*reports[:number]) if copies == 1 else statuses(*reports * number)
        )
    assert drops.rows("SELECT vehicle_id, status, extra FROM vehicle_status") == [
        (text, text, {"note": text})
    ]
    assert drops.count("rejected_records") == 0
    assert drops.count(HISTORY) == copies if copies > 1 else drops.count("ingested_files") == 1


INSTANTS = {
    "2022-06-05T21:02:34.546Z": "2022-06-05 21:02:34.546+00",
    "2022-06-05T21:02:34.546+00:00": "2022-06-05 21:02:34.546+00",
    "2022-06-06T02:32:34.546+05:30": "2022-06-05 21:02:34.546+00",
    "2022-06-05T14:02:34.546-07:00": "2022-06-05 21:02:34.546+00",
    "2022-01-01T00:30:00+01:00": "2021-12-31 23:30:00+00",
    "0001-01-01T00:00:00Z": "0001-01-01 00:00:00+00",
    "9999-12-31T23:59:59.999999Z": "9999-12-31 23:59:59.999999+00",
}


@pytest.mark.parametrize("others", [0, 150])
def test_offsets_are_honoured_whatever_the_servers_settings_are(
    server: Server, own_loader: Drops, others: int
) -> None:
    name = own_loader.rows("SELECT current_database()")[0][0]
    server.execute(f"ALTER DATABASE {name} SET timezone = 'America/New_York'")
    server.execute(f"ALTER DATABASE {name} SET datestyle = 'SQL, DMY'")
    reports = [{**report(vehicle=instant), "report_time": instant} for instant in INSTANTS]
    own_loader.load(vehicles_status_1=statuses(*reports, *filler(statuses, others)))
    own_loader.load(vehicles_status_2=statuses(*reports, *filler(statuses, others), report()))  # and compared
    in_utc = "to_char(report_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
    found = own_loader.rows(f"SELECT vehicle_id, {in_utc} FROM {HISTORY} WHERE vehicle_id LIKE '%-%-%T%'")
    assert {instant: padded(shown) for instant, shown in found} == {
        instant: padded(shown.removesuffix("+00")) for instant, shown in INSTANTS.items()
    }
    assert own_loader.count("rejected_records") == 0


def padded(shown: str) -> str:
    return (
        shown if "." in shown and len(shown) == 26 else (shown + ("" if "." in shown else ".")).ljust(26, "0")
    )


BAD_REPORTS: dict[str, Any] = {
    "no offset": {**report(), "report_time": "2022-05-05T22:02:34.546"},
    "a date": {**report(), "report_time": "2022-05-05"},
    "now": {**report(), "report_time": "now"},
    "infinity": {**report(), "report_time": "infinity"},
    "seconds since 1970": {**report(), "report_time": 1651788154},
    "year 10000 of UTC": {**report(), "report_time": "9999-12-31T23:59:59-01:00"},
    "year 0 of UTC": {**report(), "report_time": "0001-01-01T00:00:00+01:00"},
    "no time": {"vehicle_id": VEHICLE, "status": "driving"},
    "a number for text": report(status=5),  # type: ignore[arg-type]
    "true for text": report(status=True),  # type: ignore[arg-type]
    "null for text": report(status=None),  # type: ignore[arg-type]
    "no text": report(status=""),
    "too long a text": report(status="x" * 256),
    "NUL in text": report(status="a\0b"),
    "NUL in a field's name": {**report(), "a\0b": 1},
    "NUL in an extra field": report(note=["a\0b"]),
    "a list": ["report"],
    "null": None,
    "a number": 7,
}


@pytest.mark.parametrize("bad", BAD_REPORTS.values(), ids=BAD_REPORTS.keys())
def test_a_bad_report_is_rejected_with_its_original(drops: Drops, bad: Any) -> None:
    (outcome,) = drops.load(vehicles_status_1=statuses(report(1), bad, report(2)))
    assert (outcome.state, counts(outcome)) == ("loaded", (3, 2, 0, 1))
    ((position, path, reason, detail, original),) = drops.rows(
        "SELECT position, path, reason, detail, original::text FROM rejected_records"
    )
    assert (position, reason, json.decode(original)) == (1, "invalid", bad)
    assert path.startswith("$.vehicle_status[1]")
    assert detail
    assert drops.count(HISTORY) == 2


BAD_VALUES: dict[str, Any] = {
    "text": "3",
    "a fraction": 2.5,
    "true": True,
    "null": None,
    "2^31": 2**31,
    "-2^31-1": -(2**31) - 1,
    "beyond 64 bits": 10**30,
}


@pytest.mark.parametrize("bad", BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_a_bad_value_costs_only_its_own_detection(drops: Drops, bad: Any) -> None:
    content = json.encode({"x": None}).replace(b"null", b"%d" % bad) if bad == 10**30 else None
    document = detections(event(1, ("cars", 1), ("signs", 0), ("trucks", 3)))
    written = content[len(b'{"x":') : -1] if content else json.encode(bad)
    document = document.replace(b'"object_value":0', b'"object_value":' + written)
    (outcome,) = drops.load(objects_detection_1=document)
    assert counts(outcome) == (3, 2, 0, 1)
    ((path, original),) = drops.rows("SELECT path, original::text FROM rejected_records")
    assert path == "$.objects_detection_events[0].detections[1].object_value"
    assert b'"object_value":' + written in original.encode()


def test_new_object_types_and_statuses_are_data(drops: Drops) -> None:
    drops.load(
        objects_detection_1=detections(event(1, ("unicorns", 1))), vehicles_status_1=statuses(report(1, "✈"))
    )
    assert drops.values(f"SELECT object_type FROM {EVENTS}") == ["unicorns"]
    assert drops.values("SELECT status FROM vehicle_status") == ["✈"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (f"{D}1", detections()),
        (f"{S}1", statuses()),
        ("x", statuses()),
        (f"{D}1", detections({**event(), "detections": []})),
    ],
)
def test_a_file_without_records_is_loaded(drops: Drops, name: str, content: bytes) -> None:
    (outcome,) = drops.load(**{name: content})
    assert (outcome.state, counts(outcome)) == ("loaded", (0, 0, 0, 0))
    assert drops.rows("SELECT state, rows_read FROM ingested_files") == [("loaded", 0)]
    assert drops.left() == []


def test_one_bad_record_in_100_000_costs_one_rejected_record(drops: Drops) -> None:
    records = many_reports(100_000)
    records[77_777] = {**records[77_777], "status": 5}
    (outcome,) = drops.load(vehicles_status_1=statuses(*records))
    assert counts(outcome) == (100_000, 99_999, 0, 1)
    assert drops.rows("SELECT position, path FROM rejected_records") == [
        (77_777, "$.vehicle_status[77777].status")
    ]
    assert drops.count(HISTORY) == 99_999
    assert drops.count("vehicle_status") == 28


def test_garbage_behind_100_000_rows_leaves_none_of_them(drops: Drops) -> None:
    outcome = drops.load_one("vehicles_status_1.json", statuses(*many_reports(100_000)) + b"x")
    assert outcome.state == "failed"
    assert drops.count(HISTORY) == drops.count("vehicle_status") == 0
    assert states(drops.load(vehicles_status_2=statuses(report()))) == ["loaded"]


# What a file may be ----------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gz", "zst"])
@pytest.mark.parametrize("rows", [2, 30_000])
def test_compressed_files_are_loaded(drops: Drops, compress: Callable[[bytes], bytes], rows: int) -> None:
    content = compress(statuses(*many_reports(rows)))
    outcomes = drops.load_until_done({f"{S}1.json.gz": content})
    assert [(outcome.state, outcome.counts.inserted) for outcome in outcomes] == [("loaded", rows)]
    assert drops.values("SELECT size FROM ingested_files") == [len(content)]


def test_a_byte_order_mark_is_accepted(drops: Drops) -> None:
    assert states(drops.load(vehicles_status_1=b"\xef\xbb\xbf" + statuses(report()))) == ["loaded"]


def test_a_file_of_another_name_is_recognised_by_its_key(drops: Drops) -> None:
    outcomes = drops.load(morning=statuses(report()), evening=detections(event()))
    assert [(outcome.state, outcome.kind) for outcome in outcomes] == [
        ("loaded", "vehicles_status"),
        ("loaded", "objects_detection"),
    ]


BAD_FILES = {
    "the other kind's key": detections(event()),
    "an unknown key": b'{"events": []}',
    "no key": b"{}",
    "the key twice": b'{"vehicle_status": [], "vehicle_status": []}',
    "another key behind": b'{"vehicle_status": [], "x": 1}',
    "a dotted key": b'{"vehicle_status.item": {}, "vehicle_status": []}',
    "an object under the key": b'{"vehicle_status": {"item": {}}}',
    "null under the key": b'{"vehicle_status": null}',
    "an array": b"[]",
    "null": b"null",
    "a number": b"5 ",
    "text": b'"vehicle_status"',
    "no JSON": b"hello",
    "trailing garbage": statuses(report()) + b"x",
    "a second document": statuses(report()) * 2,
    "a NUL in a text": statuses(report(status="X")).replace(b"X", b"a\0b"),
    "a form feed": statuses(report()) + b"\f",
    "a trailing comma": statuses(report())[:-2] + b",]}",
    "NaN": statuses(report(km=0)).replace(b":0}", b":NaN}"),
    "invalid UTF-8": statuses(report(status="driv\x01ng")).replace(b"\\u0001", b"\xff"),
    "half a surrogate pair": statuses(report(status="X")).replace(b'"X"', b'"\\ud83d"'),
    "UTF-16": statuses(report()).decode().encode("utf-16"),
    "an exponent of 20 digits": statuses(report(km=0)).replace(b":0}", b":1e" + b"1" * 20 + b"}"),
    "deep nesting": b'{"vehicle_status": [' + b"[" * 100 + b"]" * 100 + b"]}",
    "damaged gzip": gzip.compress(statuses(report()))[:-8] + b"damaged!",
    "damaged zstd": zstandard.compress(statuses(report()))[:-4] + b"bad!",
}


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_failed_with_a_reason(
    drops: Drops, monkeypatch: pytest.MonkeyPatch, content: bytes, size: str
) -> None:
    if size == "large":
        monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", 1)
        monkeypatch.setattr(db.chunk, "CHUNK_ROWS", 1)
    (outcome,) = drops.load(vehicles_status_1=content)
    assert outcome.state == "failed"
    assert outcome.reason.startswith("expected ")
    assert (drops.failed / "vehicles_status_1.json").read_bytes() == content
    assert (drops.failed / "vehicles_status_1.json.reason.txt").read_text() == outcome.reason + "\n"
    assert outcome.target == str(drops.failed / "vehicles_status_1.json")
    assert drops.rows("SELECT state, error, encode(sha256, 'hex'), rows_read FROM ingested_files") == [
        ("failed", outcome.reason, hashlib.sha256(content).hexdigest(), 0)
    ]
    assert [drops.count(table) for table in (EVENTS, HISTORY, "vehicle_status", "rejected_records")] == [
        0
    ] * 4
    assert drops.left() == []


TRUNCATED = {
    "nothing": b"",
    "half a document": statuses(report(1), report(2))[:150],
    "all but the last byte": statuses(report())[:-1],
    "half of a gzip": gzip.compress(statuses(*many_reports(500)))[:1000],
    "half of a zstd": zstandard.compress(statuses(*many_reports(500)))[:200],
    "NULs": bytes(5000),
    "NULs behind": statuses(report()) + bytes(16),
    "NULs between": statuses(report(1), report(2)).replace(b"},{", b"}," + bytes(16) + b"{"),
    "NULs in place of a half": statuses(report(1), report(2))[:150] + bytes(150),
    "NULs in place of half of a gzip": gzip.compress(statuses(*many_reports(500)))[:1000] + bytes(3000),
    "NULs in place of half of a zstd": zstandard.compress(statuses(*many_reports(500)))[:1000] + bytes(3000),
}


@pytest.mark.parametrize("shared", [1, 10_000_000], ids=["large", "small"])
@pytest.mark.parametrize("content", TRUNCATED.values(), ids=TRUNCATED.keys())
def test_a_file_that_does_not_end_waits_until_it_has_settled(
    drops: Drops, monkeypatch: pytest.MonkeyPatch, content: bytes, shared: int
) -> None:
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", shared)
    waiting = drops.load_one("vehicles_status_1.json", content)
    assert waiting.state == "waiting"
    assert drops.left() == ["vehicles_status_1.json"]
    assert drops.count("ingested_files") == drops.count(HISTORY) == 0
    (failed,) = drops.processor.load([FileTask("vehicles_status_1.json", stable=waiting.identity)])
    assert (failed.state, failed.reason) == ("failed", waiting.reason)
    assert (drops.failed / "vehicles_status_1.json").read_bytes() == content


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gz", "zst"])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("shared", [1, 10_000_000], ids=["large", "small"])
def test_a_file_that_is_allocated_first_and_filled_later_is_loaded_once_it_is_full(
    drops: Drops,
    monkeypatch: pytest.MonkeyPatch,
    compress: Callable[[bytes], bytes],
    backwards: bool,
    shared: int,
) -> None:
    """The writer closes it after each piece, so that nothing but the zeros tells of it."""
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", shared)
    name = f"{S}1.json"
    content = compress(statuses(*[report(i, vehicle=os.urandom(16).hex()) for i in range(1000)]))
    with open(drops.incoming / name, "wb") as file:
        file.truncate(len(content))
    starts = list(range(0, len(content), 4096))
    for start in reversed(starts) if backwards else starts:
        assert states(drops.processor.load([FileTask(name)])) == ["waiting"]
        with open(drops.incoming / name, "r+b") as file:
            file.seek(start)
            file.write(content[start : start + 4096])
    assert states(drops.processor.load([FileTask(name)])) == ["loaded"]
    assert drops.count(HISTORY) == 1000


def test_a_file_that_grew_since_it_settled_waits_again_and_is_loaded_when_it_ends(drops: Drops) -> None:
    content, name = statuses(report()), "vehicles_status_1.json"
    waiting = drops.load_one(name, content[:-2])
    (drops.incoming / name).write_bytes(content[:-1])
    assert states(drops.processor.load([FileTask(name, stable=waiting.identity)])) == ["waiting"]
    (drops.incoming / name).write_bytes(content)
    assert states(drops.processor.load([FileTask(name)])) == ["loaded"]


def test_a_file_that_is_open_for_writing_waits_even_if_it_is_bad(drops: Drops) -> None:
    with open(drops.incoming / "vehicles_status_1.json", "wb", buffering=0) as file:
        file.write(b"hello")
        assert states(drops.processor.load([FileTask("vehicles_status_1.json")])) == ["waiting"]
    assert states(drops.processor.load([FileTask("vehicles_status_1.json")])) == ["failed"]


def test_a_condemned_file_is_failed_unread(drops: Drops) -> None:
    outcome = drops.load_one(
        "vehicles_status_1.json", statuses(report()), poison_reason="it killed two workers"
    )
    assert (outcome.state, outcome.reason) == ("failed", "it killed two workers")
    assert drops.values("SELECT error FROM ingested_files") == ["it killed two workers"]
    assert drops.values("SELECT sha256 FROM ingested_files") == [None]
    assert drops.count(HISTORY) == 0


def test_a_text_too_large_to_share_a_transaction_is_loaded_alone(drops: Drops) -> None:
    large = gzip.compress(statuses(*many_reports(30_000)))
    outcomes = drops.load_named({f"{S}1.json.gz": large, f"{S}2.json": statuses(report(1, vehicle="x"))})
    assert states(outcomes) == ["retry_alone", "loaded"]
    assert drops.left() == [f"{S}1.json.gz"]
    (alone,) = drops.processor.load([FileTask(f"{S}1.json.gz")])
    assert (alone.state, counts(alone)) == ("loaded", (30_000, 30_000, 0, 0))


def test_a_large_file_in_a_shared_batch_waits_for_its_own(drops: Drops, tiny: None) -> None:
    outcomes = drops.load(vehicles_status_1=statuses(*many_reports(50)), vehicles_status_2=statuses(report()))
    assert states(outcomes) == ["retry_alone", "loaded"]


def test_a_file_of_more_than_max_bytes_is_failed_unread(tmp_path: Path, database: Database) -> None:
    drops = Drops(tmp_path, database, max_bytes=50)
    outcome = drops.load_one("vehicles_status_1.json", statuses(report()))
    drops.sink.close()
    size = len(statuses(report()))
    assert (outcome.state, outcome.reason) == (
        "failed",
        f"expected at most 50 bytes (MAX_FILE_BYTES), got {size}",
    )
    assert drops.rows("SELECT sha256, size, error FROM ingested_files") == [(None, size, outcome.reason)]


def test_a_text_of_more_than_max_bytes_is_failed(tmp_path: Path, database: Database) -> None:
    drops = Drops(tmp_path, database, max_bytes=2_200_000)
    outcome = drops.load_one("vehicles_status_1.json", gzip.compress(statuses(*many_reports(30_000))))
    drops.sink.close()
    assert (outcome.state, outcome.reason) == (
        "failed",
        "expected at most 2200000 bytes of text (MAX_FILE_BYTES)",
    )
    assert drops.count(HISTORY) == 0


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_what_is_no_regular_file_is_set_aside_unopened(drops: Drops, make: Callable[[Path], None]) -> None:
    make(drops.incoming / "vehicles_status_1.json")
    (outcome,) = drops.processor.load([FileTask("vehicles_status_1.json")])
    assert (outcome.state, outcome.identity) == ("failed", None)
    assert os.path.lexists(drops.failed / "vehicles_status_1.json")
    assert drops.rows("SELECT sha256, state FROM ingested_files") == [(None, "failed")]


def test_a_file_that_is_gone_is_gone(drops: Drops) -> None:
    assert states(drops.processor.load([FileTask("vehicles_status_1.json")])) == ["gone"]
    assert drops.count("ingested_files") == 0


def test_bad_files_among_50_good_ones_do_not_touch_them(drops: Drops) -> None:
    files = {f"{S}{i}.json": statuses(report(i)) for i in range(50)}
    bad = {f"{S}bad_{i}.json": content for i, content in enumerate(BAD_FILES.values())}
    half = {f"{S}half.json": b'{"vehicle_status": ['}
    mixed = dict(sorted((files | bad | half).items(), key=lambda item: hashlib.sha256(item[1]).digest()))
    outcomes = {outcome.name: outcome.state for outcome in drops.load_named(mixed)}
    assert outcomes == dict.fromkeys(files, "loaded") | dict.fromkeys(bad, "failed") | dict.fromkeys(
        half, "waiting"
    )
    assert drops.count(HISTORY) == 50
    assert drops.left() == [f"{S}half.json"]


def test_a_failed_file_that_is_mended_is_loaded(drops: Drops) -> None:
    drops.load(vehicles_status_1=b"hello")
    assert states(drops.load(vehicles_status_1=statuses(report()))) == ["loaded"]
    assert drops.values("SELECT state FROM ingested_files ORDER BY file_id") == ["failed", "loaded"]


@pytest.mark.parametrize("times", [2, 3])
def test_a_file_that_fails_again_is_counted_once_each_time(drops: Drops, times: int) -> None:
    for i in range(times):
        drops.load_one(f"{S}{i}.json", b"hello")
    assert drops.rows("SELECT deliveries, name, last_name FROM ingested_files") == [
        (times, f"{S}0.json", f"{S}{times - 1}.json")
    ]


def test_names_that_are_no_text_are_stored_escaped(drops: Drops) -> None:
    drops.load_named({os.fsdecode(b"vehicles_status_\xff\n\x1b.json"): statuses(report())})
    assert drops.values("SELECT name FROM ingested_files") == ["vehicles_status_\\xff\\n\\x1b.json"]


# Between opening and COMMIT --------------------------------------------------------------------------


@contextmanager
def opened_for_writing_while_it_is_read(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> Iterator[list[BufferedWriter]]:
    """A program opens a file again just after it was opened for reading."""
    writers: list[BufferedWriter] = []
    loaded = PostgresTransaction.loaded

    def open_and_ask(transaction: PostgresTransaction, digests: Sequence[bytes]) -> set[bytes]:
        if not writers:
            writers.append(open(path, "ab"))  # noqa: SIM115
        return loaded(transaction, digests)

    monkeypatch.setattr(PostgresTransaction, "loaded", open_and_ask)
    try:
        yield writers
    finally:
        for writer in writers:
            writer.close()


@pytest.mark.parametrize("shared", [1, 10_000_000], ids=["large", "small"])
@pytest.mark.parametrize("content", [b"hello", statuses(report())], ids=["bad", "good"])
def test_a_file_that_is_opened_for_writing_while_it_is_read_waits(
    drops: Drops, monkeypatch: pytest.MonkeyPatch, content: bytes, shared: int
) -> None:
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", shared)
    name = "vehicles_status_1.json"
    with opened_for_writing_while_it_is_read(monkeypatch, drops.incoming / name):
        assert states(drops.load_named({name: content})) == ["waiting"]
    assert drops.count("ingested_files") == drops.count(HISTORY) == 0
    assert states(drops.processor.load([FileTask(name)])) == ["failed" if content == b"hello" else "loaded"]


@contextmanager
def races_lost(monkeypatch: pytest.MonkeyPatch, times: int, then: Callable[[], None]) -> Iterator[None]:
    """As if another process had entered the same file, so often."""
    add, left = ledger.add, iter(range(times))

    def lose(cursor: Any, entries: Sequence[Entry]) -> None:
        if next(left, None) is None:
            return add(cursor, entries)
        then()
        raise TryAgain("lost")

    monkeypatch.setattr(ledger, "add", lose)
    yield
    monkeypatch.setattr(ledger, "add", add)


@pytest.mark.parametrize("shared", [1, 10_000_000], ids=["large", "small"])
def test_a_lost_race_is_run_again_a_few_times(
    drops: Drops, monkeypatch: pytest.MonkeyPatch, shared: int
) -> None:
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", shared)
    content = statuses(report(1), report(1), report(1, "parking"))
    with races_lost(monkeypatch, 5, lambda: None):
        (outcome,) = drops.load_named({"vehicles_status_1.json": content})
    assert (outcome.state, outcome.reason) == ("contended", "lost")
    with races_lost(monkeypatch, 4, lambda: None):
        (outcome,) = drops.processor.load([FileTask("vehicles_status_1.json")])
    assert (outcome.state, counts(outcome)) == ("loaded", (3, 1, 1, 1))
    assert drops.count(HISTORY) == drops.count("rejected_records") == 1


def test_files_that_lose_every_race_are_tried_alone(drops: Drops, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{S}{number}.json": statuses(report(number)) for number in range(3)}
    with races_lost(monkeypatch, 5, lambda: None):
        assert states(drops.load_named(files)) == ["retry_alone"] * 3
    assert states(drops.processor.load([FileTask(name) for name in files])) == ["loaded"] * 3


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks that are waited for are given up soon."""
    monkeypatch.setattr("db.sink.HASTY", "SET LOCAL lock_timeout = '200ms';")
    monkeypatch.setitem(db.session._SETTINGS, "lock_timeout", "'400ms'")


@contextmanager
def locked(drops: Drops, table: str) -> Iterator[None]:
    with closing(psycopg2.connect(drops.database.url)) as other:
        other.cursor().execute(f"LOCK TABLE mobileye_data.{table} IN EXCLUSIVE MODE")
        yield


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("shared", [1, 10_000_000], ids=["large", "small"])
@pytest.mark.parametrize("table", ["ingested_files", "vehicle_status", HISTORY])
def test_a_file_that_meets_a_lock_is_tried_again_later(
    drops: Drops, monkeypatch: pytest.MonkeyPatch, table: str, shared: int
) -> None:
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", shared)
    with locked(drops, table):
        (outcome,) = drops.load(vehicles_status_1=statuses(report()))
    assert outcome.state == "contended" and "lock timeout" in outcome.reason
    assert states(drops.processor.load([FileTask("vehicles_status_1.json")])) == ["loaded"]


@pytest.mark.usefixtures("hasty")
def test_a_bad_file_that_can_not_be_entered_for_a_lock_is_tried_again_later(drops: Drops) -> None:
    with locked(drops, "ingested_files"):
        assert states(drops.load(vehicles_status_1=b"hello")) == ["contended"]
    assert states(drops.processor.load([FileTask("vehicles_status_1.json")])) == ["failed"]


def test_a_file_that_has_no_rows_for_longer_than_a_session_may_be_idle_is_loaded(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", 1)
    monkeypatch.setitem(db.session._SETTINGS, "idle_in_transaction_session_timeout", "'500ms'")
    text = statuses(report(1), report(2)).replace(b"},{", b"}," + b" " * 2_000_000 + b"{")
    drop(tmp_path, f"{S}1.json", gzip.compress(text))
    folders = str(tmp_path), str(tmp_path / "failed"), ""
    with closing(PostgresSink(database, idle_seconds=0.1)) as sink:

        def beat() -> None:
            time.sleep(0.05)  # a slow disk
            sink.keep_alive()

        loader = Loader(FolderSource(*folders, OnLoaded.DELETE, beat=beat), sink, GIGABYTE)
        (outcome,) = loader.load([FileTask(f"{S}1.json")])
    assert (outcome.state, outcome.counts.inserted) == ("loaded", 2)


def test_a_file_that_could_not_be_read_at_the_first_try_may_be_loaded_at_the_next(
    drops: Drops, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["vehicles_status_1.json", "vehicles_status_2.json"]
    files = {name: statuses(report(i)) for i, name in enumerate(names)}
    with (
        opened_for_writing_while_it_is_read(monkeypatch, drops.incoming / names[0]) as writers,
        races_lost(monkeypatch, 1, lambda: writers[0].close()),
    ):
        assert states(drops.load_named(files)) == ["loaded", "loaded"]
    assert drops.count(HISTORY) == 2
    assert drops.left() == []


# A model ---------------------------------------------------------------------------------------------

COUNTED = st.tuples(st.sampled_from(["cars", "signs", "trucks"]), st.sampled_from([1, 1, 1, 2, "bad"]))
EVENT = st.one_of(
    st.builds(
        lambda second, vehicle, counted, more: {
            **event(second, vehicle=vehicle),
            "detections": [{"object_type": kind, "object_value": value} for kind, value in counted],
            **more,
        },
        st.integers(0, 3),
        st.sampled_from(["a", "b"]),
        st.lists(COUNTED, max_size=4),
        st.sampled_from([{}, {}, {"lane": 1}]),
    ),
    st.just({"vehicle_id": "a"}),
)
REPORT = st.one_of(
    st.builds(
        report,
        st.integers(0, 3),
        st.sampled_from(["driving", "driving", "parking", 5]),
        st.sampled_from(["a", "b"]),
    ),
    st.none(),
)
FILE = st.one_of(
    st.tuples(
        st.sampled_from([D, D, "x", S]), st.lists(EVENT, max_size=8).map(lambda events: detections(*events))
    ),
    st.tuples(
        st.sampled_from([S, S, "x", D]), st.lists(REPORT, max_size=8).map(lambda found: statuses(*found))
    ),
    st.tuples(st.sampled_from([S, D]), st.sampled_from([b"hello", b"[]", statuses(report()) + b"x"])),
)
BATCHES = st.lists(st.lists(FILE, min_size=1, max_size=5), min_size=1, max_size=4)


class Model:
    """The rules of DESIGN.md over dictionaries."""

    def __init__(self) -> None:
        self.detections: dict[tuple[str, str, str], Any] = {}
        self.history: dict[tuple[str, str], Any] = {}
        self.latest: dict[str, tuple[str, Any]] = {}
        self.ledger: dict[bytes, tuple[str, int, list[int]]] = {}
        self.rejected: list[tuple[bytes, int, str]] = []

    def take(self, name: str, content: bytes) -> str:
        digest = hashlib.sha256(content).digest()
        state, deliveries, counted = self.ledger.get(digest, ("", 0, [0, 0, 0, 0]))
        result = "duplicate" if state == "loaded" else self._load(name, digest, content)
        if result == "loaded":
            counted = self._counted
        kept = "loaded" if result == "duplicate" else result
        self.ledger[digest] = (kept, deliveries + 1, counted)
        return result

    def _load(self, name: str, digest: bytes, content: bytes) -> str:
        self._counted = [0, 0, 0, 0]
        self._digest = digest
        try:
            document = json.decode(content)
            ((key, elements),) = document.items()
        except Exception:  # noqa: BLE001
            return "failed"
        if name.startswith(S if key == EVENTS else D):
            return "failed"
        for element in elements:
            self._take_event(element) if key == EVENTS else self._take_report(element)
        return "loaded"

    def _take_event(self, element: Any) -> None:
        if "detections" not in element:
            return self._reject("invalid")
        extra = {"lane": 1} if "lane" in element else None
        for counted in element["detections"]:
            value, time = counted["object_value"], element["detection_time"]
            if value == "bad":
                self._reject("invalid")
            else:
                key = element["vehicle_id"], time, counted["object_type"]
                self._insert(self.detections, key, (value, extra))
        return None

    def _take_report(self, element: Any) -> None:
        if element is None or element["status"] == 5:
            return self._reject("invalid")
        key = vehicle, time = element["vehicle_id"], element["report_time"]
        if self._insert(self.history, key, element["status"]) and self.latest.get(vehicle, ("",))[0] < time:
            self.latest[vehicle] = time, element["status"]
        return None

    def _insert(self, table: dict[Any, Any], key: Any, value: Any) -> bool:
        if key not in table:
            table[key] = value
            self._count(1)
            return True
        if table[key] == value:
            self._count(2)
        else:
            self._reject("conflict")
        return False

    def _reject(self, reason: str) -> None:
        self.rejected.append((self._digest, self._counted[0], reason))
        self._count(3)

    def _count(self, what: int) -> None:
        self._counted[0] += 1
        self._counted[what] += 1


def compare(drops: Drops, model: Model) -> None:
    time = 'to_char({}, \'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"\')'
    found = drops.rows(
        f"SELECT vehicle_id, {time.format('detection_time')}, object_type, object_value, extra FROM {EVENTS}"
    )
    assert {row[:3]: row[3:] for row in found} == model.detections
    found = drops.rows(f"SELECT vehicle_id, {time.format('report_time')}, status FROM {HISTORY}")
    assert {row[:2]: row[2] for row in found} == model.history
    found = drops.rows(f"SELECT vehicle_id, {time.format('report_time')}, status FROM vehicle_status")
    assert {row[0]: row[1:] for row in found} == model.latest
    found = drops.rows(
        """
        SELECT sha256, state, deliveries, rows_read, rows_inserted, rows_duplicate, rows_rejected
        FROM ingested_files
        """
    )
    assert {bytes(row[0]): (row[1], row[2], list(row[3:])) for row in found} == model.ledger
    found = drops.rows(
        "SELECT sha256, position, reason FROM rejected_records JOIN ingested_files USING (file_id)"
    )
    assert sorted((bytes(row[0]), *row[1:]) for row in found) == sorted(model.rejected)


def run_against_model(drops: Drops, batches: list[list[tuple[str, bytes]]]) -> None:
    drops.clear()
    model = Model()
    for number, batch in enumerate(batches):
        files = {f"{prefix}{number}_{i}.json": content for i, (prefix, content) in enumerate(batch)}
        outcomes = drops.load_until_done(files)
        assert [model.take(outcome.name, files[outcome.name]) for outcome in outcomes] == states(outcomes)
        assert drops.left() == []
    compare(drops, model)


@fuzz
@given(BATCHES)
def test_random_batches_end_as_the_rules_say(drops: Drops, batches: list[list[tuple[str, bytes]]]) -> None:
    run_against_model(drops, batches)


@pytest.mark.usefixtures("tiny")
@fuzz
@given(BATCHES)
def test_random_batches_end_as_the_rules_say_by_every_path(
    drops: Drops, batches: list[list[tuple[str, bytes]]]
) -> None:
    run_against_model(drops, batches)


# Trouble with the database ---------------------------------------------------------------------------


class Proxy:
    """Between a client and the server; loses the first COMMIT of a connection, or the answer to it."""

    def __init__(self, port: int, lose: str) -> None:
        self._server_port = port
        self._lose = lose
        self.lost = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                for step in (self._forward, self._answer):
                    thread = threading.Thread(target=step, args=(client, server))
                    self._threads.append(thread)
                    thread.start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with closing(client), closing(server), suppress(OSError):
            while data := client.recv(65536):
                if data[5:] == b"COMMIT\0" and not self.lost:
                    self.lost += 1
                    if self._lose == "answer":
                        server.sendall(data)
                        continue  # _answer cuts
                    break
                server.sendall(data)
            cut(client, server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if self.lost == 1 and self._lose == "answer" and b"C\0\0\0\x0bCOMMIT\0" in data:
                    self.lost += 1
                    break
                client.sendall(data)
            cut(client, server)


def cut(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def loading_through(proxy: Proxy, folder: Path, database: Database) -> Iterator[Drops]:
    name = psycopg2.extensions.parse_dsn(database.url)
    drops = Drops(
        folder, Database(psycopg2.extensions.make_dsn(**{**name, "port": proxy.port, "sslmode": "disable"}))
    )
    drops.database = database
    try:
        yield drops
    finally:
        drops.sink.close()
        proxy.close()


@pytest.mark.parametrize(("lose", "then"), [("answer", "duplicate"), ("COMMIT", "loaded")])
@pytest.mark.parametrize("shared", [1, 10_000_000], ids=["large", "small"])
def test_when_the_commit_or_its_answer_is_lost_the_rows_are_there_once(
    server: Server,
    tmp_path: Path,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    lose: str,
    then: str,
    shared: int,
) -> None:
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", shared)
    with loading_through(Proxy(server.port, lose), tmp_path, database) as drops:
        with pytest.raises(DatabaseUnavailable):
            drops.load(vehicles_status_1=statuses(report(1), report(2)))
        assert drops.left() == ["vehicles_status_1.json"]
        assert states(drops.processor.load([FileTask("vehicles_status_1.json")])) == [then]
        assert drops.count(HISTORY) == 2
        assert drops.left() == []


@pytest.mark.parametrize("wrong", [b"hello", statuses(report())], ids=["bad", "good"])
def test_without_its_database_all_files_stay_as_they_were(own_loader: Drops, wrong: bytes) -> None:
    own_loader.rows("DROP TABLE ingested_files CASCADE")
    with pytest.raises(Misconfigured):
        own_loader.load(vehicles_status_1=wrong, vehicles_status_2=b"[]")
    assert own_loader.left() == ["vehicles_status_1.json", "vehicles_status_2.json"]
    assert not own_loader.failed.exists()


def test_a_file_waits_alone_if_its_failure_cannot_be_recorded(own_loader: Drops) -> None:
    own_loader.rows("ALTER TABLE ingested_files ADD CHECK (state <> 'failed')")
    outcomes = own_loader.load(vehicles_status_1=statuses(report()), vehicles_status_2=b"[]")
    assert states(outcomes) == ["loaded", "waiting"]
    assert own_loader.left() == ["vehicles_status_2.json"]
    own_loader.rows("ALTER TABLE ingested_files DROP CONSTRAINT ingested_files_state_check1")
    assert states(own_loader.processor.load([FileTask("vehicles_status_2.json")])) == ["failed"]
    assert own_loader.count(HISTORY) == 1


# Too many rejects ------------------------------------------------------------------------------------

QUARTER = [report(1), report(2), report(3), {"vehicle_id": "x"}]


@pytest.fixture
def strict(tmp_path: Path, shared_database: Database) -> Iterator[Drops]:
    """One that takes no more than a quarter of rejects."""
    drops = Drops(tmp_path, shared_database, max_reject_ratio=0.25)
    drops.clear()
    yield drops
    drops.sink.close()


def failures(drops: Drops) -> list[tuple[Any, ...]]:
    return drops.rows("SELECT name, kind, error FROM ingested_files WHERE state = 'failed' ORDER BY file_id")


def too_many(figures: str) -> str:
    return f"expected a share of at most 0.25 of rejected records (MAX_REJECT_RATIO), got {figures}"


def test_a_file_with_just_so_many_rejects_is_loaded(strict: Drops) -> None:
    outcome = strict.load_one("vehicles_status_1.json", statuses(*QUARTER))
    assert (outcome.state, counts(outcome)) == ("loaded", (4, 3, 0, 1))


@pytest.mark.parametrize("copies", [1, 10], ids=["small", "large"])
def test_a_file_with_more_rejects_fails_and_leaves_no_trace(strict: Drops, tiny: None, copies: int) -> None:
    content = statuses(*many_reports(2 * copies), *[{}] * copies)
    outcome = strict.load_one("vehicles_status_1.json", content)
    reason = too_many(f"{copies} of {3 * copies}")
    assert (outcome.state, outcome.reason, counts(outcome)) == ("failed", reason, (0, 0, 0, 0))
    assert failures(strict) == [("vehicles_status_1.json", "vehicles_status", reason)]
    assert [strict.count(table) for table in (HISTORY, "vehicle_status", "rejected_records")] == [0, 0, 0]
    assert (strict.failed / "vehicles_status_1.json").read_bytes() == content


@pytest.mark.parametrize("copies", [1, 10], ids=["small", "large"])
def test_rejects_found_only_on_writing_count_too(strict: Drops, tiny: None, copies: int) -> None:
    strict.load(vehicles_status_1=statuses(*many_reports(copies)))
    outcome = strict.load_one("vehicles_status_2.json", statuses(*many_reports(2 * copies, status="x")))
    assert (outcome.state, outcome.reason) == ("failed", too_many(f"{copies} of {2 * copies}"))
    assert strict.count(HISTORY) == copies
    assert strict.count("rejected_records") == 0


def test_an_empty_file_has_not_too_many_rejects(strict: Drops) -> None:
    assert strict.load_one("vehicles_status_1.json", statuses()).state == "loaded"


def test_a_file_with_too_many_rejects_does_not_touch_those_that_share_its_transaction(strict: Drops) -> None:
    files = {f"vehicles_status_{i}.json": statuses(report(i, vehicle=f"v{i}")) for i in range(5)}
    bad = {name: statuses(report(9, vehicle=name), {}) for name in ("vehicles_status_a.json", "b.json")}
    assert sorted(states(strict.load_until_done({**files, **bad}))) == ["failed"] * 2 + ["loaded"] * 5
    assert strict.values(f"SELECT vehicle_id FROM {HISTORY} ORDER BY 1") == [f"v{i}" for i in range(5)]
    assert strict.count("rejected_records") == 0
    assert [name for name, _, _ in failures(strict)] == ["vehicles_status_a.json", "b.json"]


def test_conflicts_with_a_file_that_has_to_leave_the_transaction_are_none(strict: Drops) -> None:
    """One after the other, the first fails: the second is in conflict with nothing."""
    first, second = statuses(report(1), {}), statuses(report(1, "parking"))
    outcomes = strict.load_until_done({"vehicles_status_1.json": first, "vehicles_status_2.json": second})
    assert sorted(outcome.name for outcome in outcomes if outcome.state == "failed") == [
        "vehicles_status_1.json"
    ]
    assert strict.values(f"SELECT status FROM {HISTORY}") == ["parking"]


def test_a_file_with_too_many_rejects_is_loaded_once_it_has_fewer_conflicts(strict: Drops) -> None:
    strict.load(vehicles_status_1=statuses(report(1)))
    content = statuses(report(1, "parking"))
    assert strict.load_one("vehicles_status_2.json", content).state == "failed"
    strict.rows(f"DELETE FROM {HISTORY}")
    assert strict.load_one("vehicles_status_2.json", content).state == "loaded"
    assert failures(strict) == []


# Rows that a fault of ours would lose ----------------------------------------------------------------


@pytest.fixture(params=[1, 10_000_000], ids=["large", "small"])
def sized(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that hold a few records each, of files that count as large or as small."""
    monkeypatch.setattr(processing.fast_path, "WINDOW_BYTES", 1000)
    monkeypatch.setattr(processing.document, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", request.param)


def lossy(method: Callable[..., Iterator[T]], lost: int) -> Callable[..., Iterator[T]]:
    """The same without the item of that index."""

    def parsed(*arguments: Any) -> Iterator[T]:
        return (item for index, item in enumerate(method(*arguments)) if index != lost)

    return parsed


BOTH_KINDS = {
    S: statuses(*[report(i, vehicle=f"v{i}") for i in range(100)]),
    D: detections(*[event(i, ("cars", i), ("signs", i), vehicle=f"v{i}") for i in range(100)]),
}


@pytest.mark.parametrize("prefix", BOTH_KINDS)
@pytest.mark.parametrize("method", ["_blocks", "parsed"])
@pytest.mark.parametrize("lost", [0, 3])
def test_a_window_that_gets_lost_is_missed_and_the_file_read_carefully(
    drops: Drops, monkeypatch: pytest.MonkeyPatch, sized: None, prefix: str, method: str, lost: int
) -> None:
    monkeypatch.setattr(FastPath, method, lossy(getattr(FastPath, method), lost))
    outcome = drops.load_one(f"{prefix}1.json", BOTH_KINDS[prefix])
    assert outcome.state == "loaded"
    assert outcome.reason.startswith("read twice: expected to read all elements of the document, got ")
    assert outcome.reason.endswith(": a fault of this program")
    rows = 100 if prefix == S else 200
    assert drops.values("SELECT rows_read FROM ingested_files") == [rows]
    assert drops.count(HISTORY if prefix == S else EVENTS) == rows


@pytest.mark.parametrize("prefix", BOTH_KINDS)
@pytest.mark.parametrize("lost", [1, 50, 99])
def test_what_a_careful_pass_loses_too_is_not_loaded_and_the_file_is_kept(
    drops: Drops, monkeypatch: pytest.MonkeyPatch, sized: None, prefix: str, lost: int
) -> None:
    monkeypatch.setattr(FastPath, "parsed", lossy(FastPath.parsed, 0))
    monkeypatch.setattr(Document, "_elements", lossy(Document._elements, lost))
    good = {f"{S}2.json": statuses(report(vehicle="good"))}
    outcomes = drops.load_until_done({f"{prefix}1.json": BOTH_KINDS[prefix]} | good)
    monkeypatch.undo()
    bad = next(outcome for outcome in outcomes if outcome.name == f"{prefix}1.json")
    records = 99 if prefix == S else 198
    assert (bad.state, bad.reason) == (
        "failed",
        f"expected to read all elements of the document, got 99 of them with {records} records: "
        "a fault of this program",
    )
    assert (drops.failed / bad.name).read_bytes() == BOTH_KINDS[prefix]
    assert drops.values(f"SELECT vehicle_id FROM {HISTORY}") == ["good"]
    assert drops.count(EVENTS) == drops.count("rejected_records") == 0


@pytest.mark.parametrize("prefix", BOTH_KINDS)
def test_what_is_lost_on_its_way_to_the_sink_is_not_loaded(
    drops: Drops, monkeypatch: pytest.MonkeyPatch, sized: None, prefix: str
) -> None:
    write, calls = PostgresTransaction.write, count()

    def lose(transaction: PostgresTransaction, parsed: Parsed) -> None:
        if next(calls) % 3:
            write(transaction, parsed)

    monkeypatch.setattr(PostgresTransaction, "write", lose)
    outcome = drops.load_one(f"{prefix}1.json", BOTH_KINDS[prefix])
    assert outcome.state == "failed" and outcome.reason.endswith("a fault of this program")
    assert (drops.failed / outcome.name).read_bytes() == BOTH_KINDS[prefix]
    assert drops.count(HISTORY) + drops.count(EVENTS) == 0


def test_a_key_that_comes_twice_is_no_fault(drops: Drops, sized: None) -> None:
    content = BOTH_KINDS[S].replace(b'"v50"', b'"v50","vehicle_id":"v50"')
    outcome = drops.load_one(f"{S}1.json", content)
    assert (outcome.state, outcome.reason, counts(outcome)) == ("loaded", "", (100, 99, 0, 1))


# Where nobody can tell who writes ------------------------------------------------------------------


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system."""
    monkeypatch.setattr("sources.local_file.is_remote", lambda fd: True)


@pytest.mark.usefixtures("hidden")
def test_a_file_whose_writers_are_hidden_is_read_when_it_has_been_quiet(drops: Drops) -> None:
    first = drops.load_one(f"{S}1.json", statuses(report(1)))
    assert (first.state, first.hides_writers) == ("waiting", True)
    assert first.reason == (
        "nobody can tell who writes it (a network file system), "
        "and it has not been unchanged for long enough (QUIET_SECONDS)"
    )
    with (drops.incoming / f"{S}1.json").open("ab") as file:
        file.write(b" ")
    (second,) = drops.processor.load([FileTask(f"{S}1.json", quiet=first.identity)])
    assert second.state == "waiting" and second.identity != first.identity
    (third,) = drops.processor.load([FileTask(f"{S}1.json", quiet=second.identity)])
    assert (third.state, third.undisposed, drops.count(HISTORY)) == ("loaded", None, 1)
    assert drops.left() == [] and 0 < (drops.processor.tidy() or 0) <= 1
    drops.processor.close()
    assert drops.processor.tidy() is None and not os.listdir(drops.incoming / ".claimed")


@pytest.mark.usefixtures("hidden")
def test_a_file_whose_writers_are_hidden_is_bad_only_when_it_has_settled(drops: Drops) -> None:
    name = f"{S}1.json"
    identity = drops.load_one(name, b'{"vehicle_status": [}').identity
    (outcome,) = drops.processor.load([FileTask(name, quiet=identity)])
    assert outcome.state == "waiting" and "expected valid JSON" in outcome.reason
    assert drops.left() == [name] and drops.count("ingested_files") == 0
    (outcome,) = drops.processor.load([FileTask(name, quiet=identity, stable=identity)])
    assert outcome.state == "failed" and drops.left() == []


@pytest.mark.usefixtures("hidden")
def test_a_file_whose_writers_are_hidden_is_removed_though_it_could_not_be_at_first(drops: Drops) -> None:
    name = f"{S}1.json"
    first = drops.load_one(name, statuses(report(1)))
    (outcome,) = drops.processor.load([FileTask(name, quiet=first.identity)])
    drop(drops.incoming, name, statuses(report(2)))
    second = drops.processor.load([FileTask(name)])[0].identity
    (outcome,) = drops.processor.load([FileTask(name, quiet=second)])
    assert (outcome.state, outcome.reason) == ("loaded", "one of its name is not removed yet")
    drops.processor.close()
    (outcome,) = drops.processor.load([FileTask(name, undisposed=outcome.undisposed)])
    drops.processor.close()
    assert (outcome.state, drops.left(), drops.count(HISTORY)) == ("duplicate", [], 2)


def test_a_small_file_of_many_rejects_is_streamed_alone(
    drops: Drops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing.loader, "_MAX_REJECTS", 2)
    wrong = statuses(report(), *[{}] * 3)
    outcomes = drops.load(vehicles_status_1=wrong, vehicles_status_2=statuses(report(1)))
    assert [outcome.state for outcome in outcomes] == ["retry_alone", "loaded"]
    (outcome,) = drops.load(vehicles_status_1=wrong)
    assert (outcome.state, outcome.counts.inserted, outcome.counts.rejected) == ("loaded", 1, 3)


@pytest.mark.parametrize("beside", [{}, {"x": {"y": 2**70}}, {"status": None}])
def test_the_same_number_in_two_files_is_no_conflict_whatever_stands_beside_it(
    drops: Drops, beside: dict[str, Any]
) -> None:
    def content(*others: dict[str, Any]) -> bytes:
        return statuses(report(km=0), *others).replace(b":0}", b":0.10000000000000001}")

    assert [outcome.state for outcome in drops.load(vehicles_status_1=content())] == ["loaded"]
    repeated = content(report(1, **beside)).replace(b"]}", b',{"a":1,"a":2}]}')
    (outcome,) = drops.load(vehicles_status_2=repeated)
    assert outcome.counts.duplicate == 1


def test_what_jsonb_can_not_hold_is_never_sent(drops: Drops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db.conflicts.ConflictResolver, "run", None)  # halving begins there
    content = statuses(*[report(second, km=0) for second in range(300)]).replace(b":0}", b":1e200000}")
    (outcome,) = drops.load(vehicles_status_1=content)
    assert (outcome.state, outcome.counts.rejected) == ("loaded", 300)
