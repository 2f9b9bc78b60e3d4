"""What the tests of the loader share: a drop folder that is loaded into a database, and its outcomes."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from db import audit
from db.connection import Database
from db.sink import PostgresSink
from processing.batch import FileTask, Outcome
from processing.loader import Loader
from sources.folder import FolderSource
from sources.policy import OnLoaded
from tests.support import drop, event, query, report, statuses

D, S = "objects_detection_", "vehicles_status_"
EVENTS, HISTORY = "objects_detection_events", "vehicle_status_history"
TABLES = (EVENTS, HISTORY, "vehicle_status", "ingested_files", "rejected_records")
GIGABYTE = 1024**3

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
        self.rows("".join(f"DELETE FROM {table};" for table in (*TABLES, "detections_hourly")))

    def wrong_hours(self) -> list[str]:
        with closing(self.database.connect()) as connection, connection.cursor() as cursor:
            return list(audit.wrong_hours(cursor))


def states(outcomes: Iterable[Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes]


def counts(outcome: Outcome) -> tuple[int, int, int, int]:
    """Read, inserted, duplicate, rejected."""
    found = outcome.counts
    return found.read, found.inserted, found.duplicate, found.rejected


def many_reports(count: int, **more: Any) -> list[dict[str, Any]]:
    return [report(i % 3600, vehicle=f"car-{i // 3600}", **more) for i in range(count)]


def filler(document: Callable[..., bytes], count: int) -> list[Any]:
    if document is statuses:
        return [report(i % 3600, vehicle=f"other-{i // 3600}") for i in range(count)]
    return [event(i % 3600, ("signs", i), vehicle=f"other-{i // 3600}") for i in range(count)]
