"""Injects faults into the ingest at any of its system calls; a restart must repair everything."""

import gzip
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Any, Self

import psycopg2

from db.connection import Database
from tests.chaos.nursery import MAIN, SENDER, Ended, Held, Nursery
from tests.support import detections, drop, event, report, statuses

#: The columns of all tables, without ids and run times, which differ from run to run.
_COLUMNS = {
    "objects_detection_events": "vehicle_id, detection_time, object_type, object_value, extra::text",
    "vehicle_status": "vehicle_id, report_time, status, extra::text",
    "vehicle_status_history": "vehicle_id, report_time, status, extra::text",
    "rejected_records": "position, path, reason, original::text, resolved_at IS NOT NULL",
    "ingested_files": "sha256::text, state, rows_read, rows_inserted, rows_duplicate, rows_rejected",
}

TABLES = tuple(_COLUMNS)

_CALL = re.compile(r"^(\w+)\(", re.MULTILINE)


@dataclass(frozen=True)
class Point:
    """The n-th time that a thread makes a call."""

    thread: str
    call: str
    n: int

    def __str__(self) -> str:
        return f"{self.thread}: {self.call} {self.n}"


class KillRig:
    """A folder with files of every kind, a database, and the result of a run without faults."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.url = database.url
        self.files = dict(self.dropped())
        self.nursery = Nursery(folder.parent / f"{folder.name}.log")
        self._connection = psycopg2.connect(self.url)
        self._connection.autocommit = True
        self.query("SET timezone = 'UTC'")
        self.prepare()
        self.reset()
        self.usual = self._without_faults(self._held()).output.splitlines()
        self.expected = self.rows()
        self.quarantined = self.failed()
        assert self.left() == [], "the run without faults loads everything"
        assert self.torn() == 0, "the run without faults leaves no part of anything"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.nursery.close()
        self._connection.close()

    def dropped(self) -> Iterator[tuple[str, bytes]]:
        """Yields files of both kinds: small, large, compressed, with duplicates, conflicts and flaws."""
        yield "objects_detection_1.json", detections(*(event(i) for i in range(10)))
        yield "objects_detection_2.json", detections(*(event(i) for i in range(5, 15)))
        yield "objects_detection_3.json", detections(event(0, ("cars", 7)), {"no": "event"})
        yield "objects_detection_4.json", detections(*(event(i) for i in range(10)))
        yield "vehicles_status_1.json.gz", gzip.compress(statuses(*(report(i) for i in range(10))))
        yield "vehicles_status_2.json", statuses(report(20, "parking"), report(3, "driving"))
        yield "vehicles_status_3.json", b'{"vehicle_status": [}'
        kinds = ("pedestrians", "cars", "trucks", "signs", "obstacles")
        many = [event(i, *((k, i % 9) for k in kinds), vehicle=f"{i:032x}") for i in range(800)]
        yield "objects_detection_large.json", detections(*many)
        yield "vehicles_status_large.json", statuses(*(report(i, vehicle=f"{i:032x}") for i in range(2_500)))

    def prepare(self) -> None:
        """Prepares what all runs share; called once."""

    def reset(self) -> None:
        """Restores folder and tables to their state before the first run."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name, content in self.files.items():
            drop(self.folder, name, content)
        self.query(f"TRUNCATE {', '.join(f'mobileye_data.{table}' for table in TABLES)}")

    def trace(self) -> list[Point]:
        """Returns every system call of each thread in a run without faults."""
        return [point for thread in (MAIN, SENDER) for point in self._trace(thread)]

    def kill_at(self, point: Point) -> bool:
        """Kills the process at a point; returns whether the process got there."""
        ended = self._strike(point, "signal=SIGKILL", str(point.n))
        assert not ended.hung and ended.code in (0, -SIGKILL), self.nursery.log.read_text()
        return ended.code != 0

    def fail_at(self, point: Point, error: str, *, for_ever: bool, seconds: float) -> Ended:
        """Runs the ingest with a call that fails, once or from then on; kills it after `seconds`."""
        return self._strike(point, f"error={error}", f"{point.n}+" if for_ever else str(point.n), seconds)

    def restart(self) -> Ended:
        """Runs the ingest without faults."""
        return self._held().run()

    def torn(self) -> int:
        """Counts rows that are visible although their file is not in the ledger."""
        return sum(self._without_entry(table) for table in TABLES)

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        return {
            table: self.query(f"SELECT {names} FROM mobileye_data.{table} ORDER BY {names}")
            for table, names in _COLUMNS.items()
        }

    def left(self) -> list[str]:
        """Returns files that are neither loaded nor quarantined, even claimed, and notes without a file."""
        failed = self.folder / "failed"
        found = [path for path in self.folder.rglob("*") if path.is_file()]
        notes = [path for path in found if path.name.endswith(".reason.txt")]
        waiting = [path for path in found if path.parent != failed]
        orphans = [note for note in notes if not note.with_name(note.name[: -len(".reason.txt")]).exists()]
        return sorted(path.name for path in [*waiting, *orphans])

    def failed(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "failed").glob("*.json"))

    def query(self, statement: str, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def _trace(self, thread: str) -> Iterator[Point]:
        self.reset()
        trace = self.folder.parent / f"{self.folder.name}.trace"
        held = self._held(thread)
        with _tracer(held, "-o", str(trace)):
            self._without_faults(held)
        counts: Counter[str] = Counter()
        for call in _CALL.findall(trace.read_text(errors="replace")):
            counts[call] += 1
            yield Point(thread, call, counts[call])

    def _without_faults(self, held: Held) -> Ended:
        ended = held.run()
        assert ended.code == 0, f"{ended} {self.nursery.log.read_text()}"
        return ended

    def _held(self, thread: str = MAIN) -> Held:
        return self.nursery.hold("ingest", str(self.folder), self.url, thread=thread)

    def _strike(self, point: Point, fault: str, when: str, seconds: float = 60) -> Ended:
        held = self._held(point.thread)
        if held.thread is None:
            return held.run()
        with _tracer(held, "-o", "/dev/null", "-e", f"inject={point.call}:{fault}:when={when}"):
            return held.run(seconds)

    def _without_entry(self, table: str) -> int:
        ((count,),) = self.query(
            f"""
            SELECT count(*)
            FROM mobileye_data.{table}
            WHERE file_id NOT IN (SELECT file_id FROM mobileye_data.ingested_files)
            """
        )
        return int(count)


class FailRig(KillRig):
    """A rig whose files share no record.

    A file with a failed call is loaded after the others. If it shared a key with one of them, the other
    value would be stored than in the run without faults.
    """

    def dropped(self) -> Iterator[tuple[str, bytes]]:
        yield from {
            **dict(super().dropped()),
            "objects_detection_2.json": detections(*(event(100 + i % 10) for i in range(15))),
            "objects_detection_3.json": detections(
                event(200, ("cars", 2)), event(200, ("cars", 7)), {"no": "event"}
            ),
            "vehicles_status_2.json": statuses(report(120, "parking"), report(103, "driving")),
        }.items()


@contextmanager
def _tracer(held: Held, *options: str) -> Iterator[None]:
    """Attaches strace to a held program until its end; without -f in `options` to one thread only."""
    command = ["strace", *options, "-p", str(held.thread)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        output = tracer.stderr.readline()
        assert b" attached" in output, output
        yield
        tracer.communicate(timeout=20)
