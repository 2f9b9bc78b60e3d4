"""A file is recognised and loaded, or fails with a reason and without a trace in the tables of records."""

import gzip
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

import db.chunk
import db.conflicts
import db.connection
import db.writer
import processing.document
import processing.fast_path
import processing.loader
from processing.batch import FileTask
from tests.processing.loading import EVENTS, HISTORY, Drops, S, many_reports, states
from tests.support import detections, event, report, statuses


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
    "two documents": b'{"vehicle_status": []} {"vehicle_status": []}',
    "a second array of ours": b'{"objects_detection_events": [], "vehicle_status": []}',
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


def test_a_poison_file_is_failed_unread(drops: Drops) -> None:
    outcome = drops.load_one(
        "vehicles_status_1.json", statuses(report()), poison_reason="it killed two workers"
    )
    assert (outcome.state, outcome.reason) == ("failed", "it killed two workers")
    assert drops.values("SELECT error FROM ingested_files") == ["it killed two workers"]
    assert drops.values("SELECT sha256 FROM ingested_files") == [None]
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


@pytest.mark.parametrize("records", [2, 30_000])
def test_fields_beside_the_array_are_kept_in_the_ledger(drops: Drops, records: int) -> None:
    content = statuses(*many_reports(records)).replace(b"{", b'{"version": 1.50, ', 1)[:-1] + b',"n":[1]}'
    assert states(drops.load(vehicles_status_1=content)) == ["loaded"]
    (extra,) = drops.values("SELECT extra::text FROM mobileye_data.ingested_files")
    assert extra == '{"n": [1], "version": 1.50}'
    assert drops.count("vehicle_status_history") == records
