"""The demo writes the requested files, each complete as soon as it is visible."""

import re
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from commands import demo
from processing.errors import Misconfigured

NAME = re.compile(r"(objects_detection|vehicles_status)_\d{8}T\d{12}_\d+\.json")


def run(folder: Path, **changes) -> int:
    defaults: dict[str, Any] = {"rate": 0, "count": 9, "records": 12, "vehicles": 100, "seed": 1}
    defaults |= {"stop": threading.Event(), "report": lambda line: None}
    return demo.run(demo.FolderTarget(folder), **(defaults | changes))


class StopAfter(threading.Event):
    """An event that is set after a number of waits; the demo waits once before each file."""

    def __init__(self, files: int) -> None:
        super().__init__()
        self.files = files
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return len(self.waits) > self.files


def decoded(folder: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(path.read_bytes()) for path in sorted(folder.iterdir())]


def times(folder: Path) -> list[datetime]:
    elements = [element for document in decoded(folder) for part in document.values() for element in part]
    return [
        datetime.fromisoformat(element.get("detection_time") or element["report_time"])
        for element in elements
    ]


def test_makes_the_folder_and_writes_count_files(tmp_path):
    folder = tmp_path / "deep" / "incoming"
    assert run(folder, count=9) == 9
    names = [path.name for path in folder.iterdir()]
    assert len(names) == 9 and all(NAME.fullmatch(name) for name in names)
    assert Counter(name.split("_")[0] for name in names) == {"objects": 6, "vehicles": 3}


def test_names_show_the_kind(tmp_path):
    run(tmp_path)
    for path in tmp_path.iterdir():
        key = "vehicle_status" if path.name.startswith("vehicles") else "objects_detection_events"
        assert list(msgspec.json.decode(path.read_bytes())) == [key]


def test_names_stay_unique_in_a_fast_backlog(tmp_path):
    assert run(tmp_path, count=2000, records=1) == 2000 == len(list(tmp_path.iterdir()))


def test_files_can_have_many_records(tmp_path):
    run(tmp_path, count=2, records=20_000)
    events, statuses = sorted((d for d in decoded(tmp_path)), key=lambda d: "vehicle_status" in d)
    assert sum(len(event["detections"]) for event in events["objects_detection_events"]) == 20_000
    assert len(statuses["vehicle_status"]) == 20_000


def test_no_files_when_none_are_wanted(tmp_path):
    assert run(tmp_path, count=0) == 0


def test_a_file_has_its_name_only_when_it_is_complete(tmp_path, monkeypatch):
    seen = []
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        seen.append(self.name)
        assert self.name == f".{target.name}.tmp" and self.parent == target.parent
        assert not target.exists()
        msgspec.json.decode(self.read_bytes())
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    run(tmp_path, count=5)
    assert len(seen) == 5 == len(list(tmp_path.iterdir()))


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(Misconfigured, match="No space left on device"):
        run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_backlog_covers_the_last_day(tmp_path):
    run(tmp_path, count=100)
    now = datetime.now(UTC)
    assert now - timedelta(hours=24, minutes=1) < min(times(tmp_path)) < now - timedelta(hours=20)
    assert now - timedelta(hours=4) < max(times(tmp_path)) <= now


def test_a_paced_run_follows_real_time_and_is_never_ahead_of_it():
    rate, records = 20, 12
    now = time.time() * 1000
    clock = demo.recent(rate, None, records)
    for number in (0, 1, 600, 1199, 1200, 5000, 100_000):
        written = now + number * 1000 / rate
        assert clock.at((number + 0.999) * records) <= written + 50
    assert clock.at(100_000 * records) > now + 100_000 * 1000 / rate - 1000


@pytest.mark.parametrize("rate", [0.001, 0.5, 20, 2000])
@pytest.mark.parametrize("count", [None, 1, 7])
def test_at_any_pace_the_first_record_is_a_day_old(rate, count):
    age = time.time() * 1000 - demo.recent(rate, count, 12).at(0)
    assert 23 * 3_600_000 < age < 25 * 3_600_000


def test_the_rate_is_kept_although_each_wait_is_a_little_late(monkeypatch, tmp_path):
    moment = 100.0

    class Asleep(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal moment
            moment += (timeout or 0) + 0.01  # wakes up late
            return False

    monkeypatch.setattr(time, "monotonic", lambda: moment)
    starts = [moment for _ in demo.numbers(20, 200, Asleep())]
    assert starts[-1] - 100 == pytest.approx(199 / 20, abs=0.02)


def test_a_stalled_run_catches_up_at_most_one_second(monkeypatch):
    moment = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: moment)
    stop = StopAfter(100)
    for number in demo.numbers(10, None, stop):
        moment += 3600 if number == 5 else (stop.waits[-1] or 0) if number < 5 else 0
    assert stop.waits[1:5] == pytest.approx([0.1] * 4, abs=0.11)
    assert stop.waits[6:16] == [0] * 10 and stop.waits[17]


def test_a_rate_with_a_count_ends(tmp_path):
    assert run(tmp_path, rate=200, count=20) == 20


def test_goes_on_until_stopped(tmp_path):
    assert run(tmp_path, rate=10_000, count=None, stop=StopAfter(50)) == 50 == len(list(tmp_path.iterdir()))


def test_a_stop_ends_a_wait_at_once(tmp_path):
    stop = threading.Event()
    endless = {"rate": 0.001, "count": None, "stop": stop}
    thread = threading.Thread(target=run, args=[tmp_path], kwargs=endless)
    thread.start()
    while not list(tmp_path.glob("*.json")):
        time.sleep(0.005)
    stop.set()
    thread.join(timeout=2)
    assert not thread.is_alive() and len(list(tmp_path.iterdir())) == 1


def test_a_stop_before_the_start_writes_nothing(tmp_path):
    stop = threading.Event()
    stop.set()
    assert run(tmp_path, count=100, stop=stop) == 0


def test_ctrl_c_ends_with_the_report(tmp_path):
    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

    lines: list[str] = []
    assert run(tmp_path, stop=Interrupted(), report=lines.append) == 0
    assert lines[-1].startswith("Wrote 0 files")


def test_reports_a_line_at_start_and_one_at_the_end(tmp_path):
    lines: list[str] = []
    run(tmp_path, rate=1000, count=3, records=12, report=lines.append)
    start, end = lines
    assert start == f"Writing 3 files of 12 records into {tmp_path}, 1000 a second; Ctrl+C stops."
    assert re.fullmatch(r"Wrote 3 files with 36 records in \d+\.\d seconds\.", end)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    place = tmp_path / "taken"
    place.write_text("a file")
    lines: list[str] = []
    with pytest.raises(Misconfigured) as error:
        run(place, report=lines.append)
    assert str(error.value) == f"Can't write into the folder {place}: a file is in its place."
    assert lines == []


def test_a_backlog_without_end_is_refused(tmp_path):
    with pytest.raises(Misconfigured, match="needs a count"):
        run(tmp_path, rate=0, count=None)


def test_runs_without_a_seed_share_no_vehicle(tmp_path):
    for name in ("one", "other"):
        run(tmp_path / name, seed=None)
    one, other = (
        {
            element["vehicle_id"]
            for document in decoded(tmp_path / name)
            for part in document.values()
            for element in part
        }
        for name in ("one", "other")
    )
    assert one.isdisjoint(other)
