"""Producers that drop files with identifiable rows, and the journal of the dropped files."""

import os
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support import detections, drop, statuses

DETECTIONS, STATUSES = "objects_detection", "vehicles_status"
TYPES = ("pedestrians", "cars", "trucks", "signs", "obstacles")
STATES = ("driving", "parking", "accident")
START = datetime(2022, 6, 5, tzinfo=UTC)

#: Part of the content of every file and of no name: a log that contains it has quoted a file.
CANARY = "canary-"

MARK = re.compile(r"p\d+s\d+")

#: Producers pause while at least this many files wait: a growing backlog would only cost time.
_MOST_WAITING = 300
_PAUSE = 0.01

LARGEST = 60_000


@dataclass(frozen=True)
class Dropped:
    """A dropped file; its row i can be identified as (producer, sequence, i) by its columns."""

    producer: int
    sequence: int
    kind: str
    rows: int

    @property
    def mark(self) -> str:
        return f"p{self.producer}s{self.sequence}"

    @property
    def vehicle(self) -> str:
        return CANARY + self.mark

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.mark}.json"

    def content(self) -> bytes:
        return self._detections() if self.kind == DETECTIONS else self._statuses()

    def _detections(self) -> bytes:
        indexes = range(self.rows)
        groups = [indexes[start : start + len(TYPES)] for start in range(0, self.rows, len(TYPES))]
        return detections(
            *(
                {
                    "vehicle_id": self.vehicle,
                    "detection_time": _time(second),
                    "detections": [{"object_type": TYPES[i % 5], "object_value": i} for i in group],
                }
                for second, group in enumerate(groups)
            )
        )

    def _statuses(self) -> bytes:
        return statuses(
            *(
                {"vehicle_id": self.vehicle, "report_time": _time(i), "status": STATES[i % 3]}
                for i in range(self.rows)
            )
        )


def _time(second: int) -> str:
    return (START + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Journal:
    """The dropped files, recorded out of the daemon's reach.

    An optional file was replaced: it may be missing, but only as a whole.
    """

    def __init__(self) -> None:
        self.files: dict[str, Dropped] = {}
        self.optional: set[str] = set()
        self._lock = threading.Lock()
        self._next = 0

    def add(self, file: Dropped, *, optional: bool = False) -> None:
        with self._lock:
            self.files[file.vehicle] = file
            if optional:
                self.optional.add(file.vehicle)

    def recent(self, count: int) -> list[Dropped]:
        with self._lock:
            return list(self.files.values())[-count:]

    def draw(self, rng: random.Random, rows: int = 0, kind: str = "") -> Dropped:
        """Makes a new file for the runner; it counts only once it is added."""
        with self._lock:
            self._next += 1
            return Dropped(0, self._next, kind or rng.choice((DETECTIONS, STATUSES)), rows or any_size(rng))

    def __len__(self) -> int:
        return len(self.files)


def any_size(rng: random.Random) -> int:
    """Draws a size: mostly small, sometimes large enough for COPY, rarely for a separate transaction."""
    chance = rng.random()
    if chance < 0.9:
        return rng.randint(1, 60)
    return rng.randint(200, 3000) if chance < 0.99 else rng.randint(40_000, LARGEST)


class Producers:
    """Threads that drop files, each by a rename, until the block ends.

    `largest` limits the rows of a file, `pause` follows each file; both may be changed meanwhile.
    """

    def __init__(self, folder: Path, journal: Journal, seed: int, count: int, largest: int) -> None:
        self._folder = folder
        self._journal = journal
        self._seed = seed
        self._count = count
        self.largest = largest
        self.pause = _PAUSE
        self._stop = threading.Event()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._produce, args=(n,)) for n in range(1, self._count + 1)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _produce(self, number: int) -> None:
        rng = random.Random(f"{self._seed}-{number}")
        sequence = 0
        while not self._stop.wait(self.pause):
            if self._waiting() < _MOST_WAITING:
                sequence += 1
                rows = min(any_size(rng), self.largest)
                file = Dropped(number, sequence, rng.choice((DETECTIONS, STATUSES)), rows)
                if self._dropped(file):
                    self._journal.add(file)

    def _dropped(self, file: Dropped) -> bool:
        """Drops a file; returns False if the folder is missing, and the producer keeps the file."""
        try:
            drop(self._folder, file.name, file.content())
        except FileNotFoundError:
            return False
        return True

    def _waiting(self) -> int:
        try:
            return len(os.listdir(self._folder))
        except FileNotFoundError:
            return 0
