"""Compares this checkout with another one in turns, on the same files: python -m benchmarks.pairs OTHER.

Both are run as a user does, only by python main.py, so that any two versions can be compared.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import psycopg2
import typer

from benchmarks import ours
from benchmarks.contenders import ROOT, Bench, count_made
from benchmarks.files import KINDS, TABLES, Made, make_files
from benchmarks.server import execute, make_partitions, running_server

NAMES = ("bulk", "large", "small", "repeat", "trickle", "start")


class Pairs:
    """The workloads of a checkout; each returns seconds."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._bulk = make_files(bench.folder / "bulk", [100_000] * 10, seed=1)
        self._large = make_files(bench.folder / "large", [1_000_000], seed=3)
        self._small = make_files(bench.folder / "small", [12] * 10_000, seed=4)
        self._again = make_files(bench.folder / "again", [100_000] * 10, seed=1, indent=" ")

    def bulk(self, checkout: Path) -> float:
        """Loads 10 files of 100,000 rows."""
        return self._load(checkout, self._bulk)

    def large(self, checkout: Path) -> float:
        """Loads one file of 1,000,000 rows."""
        return self._load(checkout, self._large)

    def small(self, checkout: Path) -> float:
        """Loads 10,000 files of 12 rows."""
        return self._load(checkout, self._small)

    def repeat(self, checkout: Path) -> float:
        """Loads 10 files of 100,000 rows that are all stored already."""
        return self._load(checkout, self._bulk, self._again)

    def trickle(self, checkout: Path) -> float:
        """Drops a file every 10 ms for 10 seconds; returns the median time until its rows are visible."""
        texts = [made.path.read_bytes() for made in self._small[:1000]]
        with self._bench.server.empty_database() as url, ours.running(url, checkout=checkout) as daemon:
            make_partitions(url)
            connection = psycopg2.connect(url)
            connection.autocommit = True
            cursor = connection.cursor()
            closed: dict[str, float] = {}
            delays: dict[str, float] = {}
            started = time.perf_counter()
            while len(delays) < len(texts):
                due = len(closed)
                if due < len(texts) and time.perf_counter() >= started + due / 100:
                    name = f"{KINDS[due % 2]}_{due:06}.json"
                    (daemon.folder / name).write_bytes(texts[due])
                    closed[name] = time.perf_counter()
                cursor.execute("SELECT name FROM mobileye_data.ingested_files")
                now = time.perf_counter()
                for (name,) in cursor.fetchall():
                    delays.setdefault(name, now - closed[name])
            connection.close()
        return statistics.median(delays.values())

    def start(self, checkout: Path) -> float:
        """Starts the daemon until it watches, with a database that has the tables."""
        with self._bench.server.empty_database() as url:
            with ours.running(url, checkout=checkout):
                pass
            started = time.perf_counter()
            with ours.running(url, checkout=checkout):
                seconds = time.perf_counter() - started
        return seconds

    def _load(self, checkout: Path, *rounds: list[Made]) -> float:
        """Loads the files of each round; returns the seconds of the last one."""
        count, seconds = 0, 0.0
        with self._bench.server.empty_database() as url, ours.running(url, checkout=checkout) as daemon:
            make_partitions(url)
            for files in rounds:
                count += len(files)
                with self._bench.copied(files) as (place, _):
                    seconds = daemon.load(place, count)
            rows = sum(execute(url, f"SELECT count(*) FROM mobileye_data.{t}")[0][0] for t in TABLES.values())
            assert rows == count_made(rounds[0]), f"{checkout} stored {rows} rows"
        return seconds


def main(
    other: Annotated[Path, typer.Argument(help="The checkout to compare with, such as a git worktree.")],
    only: Annotated[
        list[str] | None, typer.Option(help="bulk, large, small, repeat, trickle, start.")
    ] = None,
    turns: Annotated[int, typer.Option(min=1)] = 5,
) -> None:
    """Prints for each workload both medians and the median of the ratios of each pair."""
    with running_server() as server, tempfile.TemporaryDirectory(prefix="benchmark-pairs-") as folder:
        pairs = Pairs(Bench(server, Path(folder), turns))
        print("workload   other, s    this, s  other / this, of each pair (more than 1: this one is faster)")
        for name in only or NAMES:
            workload: Callable[[Path], float] = getattr(pairs, name)
            theirs: list[float] = []
            mine: list[float] = []
            for turn in range(turns):
                # Each checkout begins in every other turn, because the speed of the machine drifts.
                for checkout, seconds in ((other, theirs), (ROOT, mine))[:: 1 if turn % 2 else -1]:
                    seconds.append(workload(checkout.resolve()))
                print(f"{name}: turn {turn + 1} of {turns}", file=sys.stderr)
            ratios = sorted(them / us for them, us in zip(theirs, mine, strict=True))
            shown = f"{statistics.median(ratios):.3f}  ({ratios[0]:.3f} to {ratios[-1]:.3f})"
            print(f"{name:<9} {statistics.median(theirs):>9.4f}  {statistics.median(mine):>9.4f}  {shown}")


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
