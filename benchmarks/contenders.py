"""Lets the contenders load the same files in turns: the limit, ours and the alternatives."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import BytesIO, StringIO
from pathlib import Path

import psycopg2

from benchmarks import ours
from benchmarks.files import COLUMNS, TABLES, Made
from benchmarks.report import Figures
from benchmarks.server import Server, count_rows

ROOT = Path(__file__).parent.parent

#: Slow alternatives load only this share of the files, because only rates are compared.
SLOW = {"naive": 0.05, "pandas_sql": 0.1, "dlt_pipeline": 0.1}


class Bench:
    """A server, a folder for files, and the number of turns of each contender."""

    def __init__(self, server: Server, folder: Path, turns: int) -> None:
        self.server = server
        self.folder = folder
        self.turns = turns

    @contextmanager
    def copied(self, files: list[Made], part: float = 1.0) -> Iterator[tuple[Path, list[Made]]]:
        """Yields a folder with copies of all or some files, which a contender may delete."""
        chosen = files[: max(2, round(len(files) * part))] if part < 1 else files
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            for made in chosen:
                shutil.copy(made.path, place)
            yield Path(place), chosen

    def limit(self, files: list[Made]) -> float:
        """Measures COPY from memory, with one connection and one COPY for each file, in rows a second."""
        texts = [(made.kind, made.copy_text()) for made in files]
        with self.server.database() as url, closing(psycopg2.connect(url)) as connection:
            started = time.perf_counter()
            with connection.cursor() as cursor:
                for kind, text in texts:
                    statement = f"COPY mobileye_data.{TABLES[kind]} ({COLUMNS[kind]}) FROM STDIN"
                    cursor.copy_expert(statement, StringIO(text), size=1 << 18)
                    connection.commit()
            seconds = time.perf_counter() - started
            _check(url, files)
        return count_made(files) / seconds

    def limit_as_ours(self, files: list[Made]) -> float:
        """Measures COPY of the bytes that ours sends: sorted binary rows, with one COPY for each chunk."""
        chunks = [chunk for made in files for chunk in ours.chunks(made)]
        with self.server.database() as url, closing(psycopg2.connect(url)) as connection:
            started = time.perf_counter()
            with connection.cursor() as cursor:
                for kind, data in chunks:
                    statement = f"COPY mobileye_data.{TABLES[kind]} FROM STDIN (FORMAT binary)"
                    cursor.copy_expert(statement, BytesIO(data), size=len(data))
                connection.commit()
            seconds = time.perf_counter() - started
            _check(url, files)
        return count_made(files) / seconds

    def ours(self, files: list[Made]) -> float:
        """Measures the daemon in rows a second."""
        with (
            self.server.database() as url,
            self.copied(files) as (place, _),
            ours.running(url) as daemon,
        ):
            seconds = daemon.load(place, len(files))
            _check(url, files)
        return count_made(files) / seconds

    def alternative(self, name: str, files: list[Made], part: float | None = None) -> float:
        """Measures an alternative in its own process, in rows a second."""
        share = SLOW.get(name, 1.0) if part is None else part
        with self.server.database() as url, self.copied(files, share) as (place, chosen):
            command = [sys.executable, "-m", "benchmarks.alternatives", name, str(place), url]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
            if name != "dlt_pipeline":
                _check(url, chosen)
        return count_made(chosen) / float(done.stdout.split()[-1])

    def take_turns(
        self, workload: str, unit: str, contenders: dict[str, Callable[[], float]]
    ) -> dict[str, Figures]:
        """Runs each contender once a turn, each turn in another order, so that drift affects all equally."""
        figures = {name: Figures(workload, name, unit) for name in contenders}
        names = list(contenders)
        for turn in range(self.turns):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                figures[name].values.append(contenders[name]())
                print(f"  {workload} {name} {figures[name].values[-1]:,.1f} {unit}", file=sys.stderr)
        return figures


def count_made(files: list[Made]) -> int:
    """Counts the rows in the files."""
    return sum(len(made.rows) for made in files)


def _check(url: str, files: list[Made]) -> None:
    """Checks that all rows were loaded, since a contender that skips rows is not fast."""
    found = count_rows(url)
    assert found == count_made(files), f"{found} rows instead of {count_made(files)}"
