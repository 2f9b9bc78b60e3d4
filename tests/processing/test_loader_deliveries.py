"""A file becomes rows and an entry in the ledger, and the same bytes again become one more delivery."""

import errno
import hashlib
import os
from collections.abc import Callable

import pytest

from processing.batch import FileTask, Outcome
from sources.local_file import LocalFile
from tests.processing.loading import (
    EVENTS,
    Drops,
    S,
    counts,
    many_reports,
    states,
)
from tests.support import VEHICLE, detections, drop, event, report, statuses


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


def test_a_failed_file_that_is_fixed_is_loaded(drops: Drops) -> None:
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
