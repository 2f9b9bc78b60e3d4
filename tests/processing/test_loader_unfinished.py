"""A file that somebody may still be writing waits."""

import gzip
import os
from collections.abc import Callable

import pytest
import zstandard

import processing.document
import processing.fast_path
import processing.loader
from processing.batch import FileTask
from tests.processing.loading import HISTORY, Drops, S, many_reports, states
from tests.support import drop, report, statuses

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
def test_a_file_that_does_not_end_waits_until_it_has_been_unchanged(
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
    """The writer closes it after each piece, so that nothing but the zeros shows that it is unfinished."""
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


def test_a_file_that_grew_since_it_was_seen_waits_again_and_is_loaded_when_it_ends(drops: Drops) -> None:
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


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system."""
    monkeypatch.setattr("sources.local_file.is_remote", lambda fd: True)


@pytest.mark.usefixtures("hidden")
def test_a_file_whose_writers_are_hidden_is_read_when_it_has_been_quiet(drops: Drops) -> None:
    first = drops.load_one(f"{S}1.json", statuses(report(1)))
    assert (first.state, first.hides_writers) == ("waiting", True)
    assert first.reason == (
        "nobody can know who writes it (a network file system), "
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
def test_a_file_whose_writers_are_hidden_is_bad_only_when_it_has_been_unchanged(drops: Drops) -> None:
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
