"""Kills the ingest at any of its system calls, and looks at what a restart makes of it."""

import gzip
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Any

import psycopg2

from db.connection import Database
from tests.chaos.ingest import MARK
from tests.support import ROOT, detections, drop, event, query, report, statuses

#: The calls through which the ingest acts on the world, or the world on it.
CALLS = (
    "openat,read,preadv,newfstatat,fstat,flock,fcntl,mkdir,rename,unlink,fsync,write,close,"
    "sendto,recvfrom,poll,ppoll,connect,futex,getdents64,rmdir"
)

_TABLES = ("objects_detection_events", "vehicle_status", "vehicle_status_history", "rejected_records")
_CALL = re.compile(r"^(\d+) +(\w+)\(")


@dataclass(frozen=True)
class Point:
    """The n-th time that a process makes a call."""

    call: str
    n: int

    def __str__(self) -> str:
        return f"{self.call} {self.n}"


class KillRig:
    """A folder of files of every sort and a database; the rows that a run without faults makes of them."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.url = database.url
        self.files = dict(_files())
        self.reset()
        self.points = self._trace()
        self.expected = self.rows()
        assert self.left() == [], "the run without faults loads everything"

    def reset(self) -> None:
        """Everything as before the first run."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name, content in self.files.items():
            drop(self.folder, name, content)
        query(
            self.url,
            f"TRUNCATE mobileye_data.ingested_files, mobileye_data.{', mobileye_data.'.join(_TABLES)}",
        )

    def kill_at(self, *points: Point) -> bool:
        """Whether one of the points was reached, and the process died of it."""
        faults = [
            word for point in points for word in ("-e", f"inject={point.call}:signal=SIGKILL:when={point.n}")
        ]
        done = self._strace(*faults)
        assert done.returncode in (0, -SIGKILL, 128 + SIGKILL), done.stderr
        return done.returncode != 0

    def fail_at(self, point: Point, error: str, *, for_ever: bool) -> bool:
        """Whether the ingest ended with an error because that call failed, once or from then on."""
        when = f"{point.n}+" if for_ever else str(point.n)
        try:
            done = self._strace("-e", f"inject={point.call}:error={error}:when={when}", seconds=20)
        except subprocess.TimeoutExpired:
            return True  # a call that fails for ever may be asked again for ever
        return done.returncode != 0

    def restart(self) -> None:
        """A run without faults, after the kill."""
        subprocess.run(self._command(), cwd=ROOT, check=True, timeout=60)

    def torn(self) -> int:
        """Rows that can be seen though their file is not in the ledger."""
        with closing(psycopg2.connect(self.url)) as connection, connection.cursor() as cursor:
            return sum(self._without_entry(cursor, table) for table in _TABLES)

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """All tables, without what may differ from run to run: ids and times of the runs."""
        columns = {
            "objects_detection_events": "vehicle_id, detection_time, object_type, object_value, extra::text",
            "vehicle_status": "vehicle_id, report_time, status, extra::text",
            "vehicle_status_history": "vehicle_id, report_time, status, extra::text",
            "rejected_records": "position, path, reason, original::text",
            "ingested_files": "sha256::text, state, rows_read, rows_inserted, rows_duplicate, rows_rejected",
        }
        return {
            table: query(self.url, f"SELECT {names} FROM mobileye_data.{table} ORDER BY {names}")
            for table, names in columns.items()
        }

    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.is_file())

    def failed(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "failed").glob("*.json"))

    def _without_entry(self, cursor: Any, table: str) -> int:
        cursor.execute(
            f"""
            SELECT count(*)
            FROM mobileye_data.{table}
            WHERE file_id NOT IN (SELECT file_id FROM mobileye_data.ingested_files)
            """
        )
        count: int = cursor.fetchone()[0]
        return count

    def _trace(self) -> list[Point]:
        """Every call after the mark, in the order in which it can be hit."""
        trace = self.folder.parent / "trace"
        assert self._strace("-o", str(trace)).returncode == 0
        counts: Counter[tuple[str, str]] = Counter()
        found: dict[Point, None] = {}
        begun = False
        for line in trace.read_text(errors="replace").splitlines():
            match = _CALL.match(line)
            begun = begun or MARK in line
            if match:
                counts[match[1], match[2]] += 1
                if begun:
                    found[Point(match[2], counts[match[1], match[2]])] = None
        return list(found)

    def _strace(self, *options: str, seconds: float = 120) -> subprocess.CompletedProcess[bytes]:
        command = [
            "strace",
            "-f",
            "-qq",
            "-e",
            f"trace={CALLS}",
            "-o",
            "/dev/null",
            *options,
            *self._command(),
        ]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        ) as tracer:
            try:
                told = tracer.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(tracer.pid, SIGKILL)  # strace alone would leave the ingest behind
                raise
        return subprocess.CompletedProcess(command, tracer.returncode, *told)

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "tests.chaos.ingest", str(self.folder), self.url]


def _files() -> Iterator[tuple[str, bytes]]:
    """Small and large, both kinds, plain and compressed, with duplicates, conflicts and flaws."""
    yield "objects_detection_1.json", detections(*(event(i) for i in range(10)))
    yield "objects_detection_2.json", detections(*(event(i) for i in range(5, 15)))
    yield "objects_detection_3.json", detections(event(0, ("cars", 7)), {"no": "event"})
    yield "objects_detection_4.json", detections(*(event(i) for i in range(10)))
    yield "vehicles_status_1.json.gz", gzip.compress(statuses(*(report(i) for i in range(10))))
    yield "vehicles_status_2.json", statuses(report(20, "parking"), report(3, "driving"))
    yield "vehicles_status_3.json", b'{"vehicle_status": [}'
    kinds = ("pedestrians", "cars", "trucks", "signs", "obstacles")
    many = [event(i % 3600, *((k, i % 9) for k in kinds), vehicle=f"{i:032x}") for i in range(9000)]
    yield "objects_detection_large.json", detections(*many)
    yield (
        "vehicles_status_large.json",
        statuses(*(report(i % 3600, vehicle=f"{i:032x}") for i in range(25_000))),
    )
