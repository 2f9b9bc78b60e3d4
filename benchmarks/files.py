"""Makes the files to load, with their rows in COPY's text format: the same for every contender."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

KINDS = ("objects_detection", "vehicles_status")
TABLES = {"objects_detection": "objects_detection_events", "vehicles_status": "vehicle_status_history"}
COLUMNS = {
    "objects_detection": "vehicle_id, detection_time, object_type, object_value, file_id",
    "vehicles_status": "vehicle_id, report_time, status, file_id",
}
OBJECTS = ("pedestrians", "cars", "trucks", "signs", "obstacles")
STATUSES = ("driving", "parking", "accident")
FIRST_DAY = datetime(2026, 6, 5, tzinfo=UTC)

Row = tuple[str | int, ...]


@dataclass(frozen=True)
class Made:
    """A file and its rows."""

    kind: str
    path: Path
    rows: list[Row]

    def copy_text(self, every: int = 1) -> str:
        """Returns each row, or each `every`-th one, in COPY's text format, with file id 0."""
        return "".join(["\t".join(map(str, row)) + "\t0\n" for row in self.rows[::every]])


class Fleet:
    """Vehicles that report in turn, each time a little later, so that no key is repeated."""

    def __init__(self, seed: int, first: datetime = FIRST_DAY, vehicles: int = 3000) -> None:
        draw = random.Random(seed)
        self._vehicles = [f"{draw.getrandbits(128):032x}" for _ in range(vehicles)]
        self._draw = draw
        self._now = first
        self._turn = 0

    def make(self, folder: Path, kind: str, rows: int, number: int, indent: str = "") -> Made:
        """Writes a file of `rows` rows; another `indent` gives the same records in other bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{kind}_{number:06}.json"
        elements, made = self._detections(rows) if kind == KINDS[0] else self._reports(rows)
        key = "objects_detection_events" if kind == KINDS[0] else "vehicle_status"
        path.write_text(f'{{"{key}": {indent}[' + ", ".join(map(json.dumps, elements)) + "]}")
        return Made(kind, path, made)

    def _detections(self, count: int) -> tuple[list[dict[str, object]], list[Row]]:
        events: list[dict[str, object]] = []
        rows: list[Row] = []
        while len(rows) < count:
            vehicle, time = self._next()
            kinds = OBJECTS[: min(self._draw.randint(1, 5), count - len(rows))]
            counted = [(kind, self._draw.randint(0, 12)) for kind in kinds]
            detections = [{"object_type": kind, "object_value": value} for kind, value in counted]
            events.append({"vehicle_id": vehicle, "detection_time": time, "detections": detections})
            rows += [(vehicle, time, kind, value) for kind, value in counted]
        return events, rows

    def _reports(self, count: int) -> tuple[list[dict[str, object]], list[Row]]:
        rows: list[Row] = [(*self._next(), self._draw.choice(STATUSES)) for _ in range(count)]
        return [dict(zip(("vehicle_id", "report_time", "status"), row, strict=True)) for row in rows], rows

    def _next(self) -> tuple[str, str]:
        self._turn += 1
        self._now += timedelta(milliseconds=17)
        vehicle = self._vehicles[self._turn % len(self._vehicles)]
        return vehicle, self._now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def make_files(
    folder: Path, sizes: Iterator[int] | list[int], seed: int, indent: str = "", day: datetime = FIRST_DAY
) -> list[Made]:
    """Makes a file for each size in rows, alternating between the kinds; times begin on `day`."""
    fleet = Fleet(seed, day)
    return [fleet.make(folder, KINDS[i % 2], rows, i, indent) for i, rows in enumerate(sizes)]
