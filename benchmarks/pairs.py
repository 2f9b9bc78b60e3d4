"""Compares this checkout with another one in turns, on the same files: python -m benchmarks.pairs OTHER.

Both are run as a user does, only by python main.py, so that any two versions can be compared. The seconds are
those of the clock, and those of the processor in daemon and workers, which a busy machine disturbs less. With
--setting and --view, which are for this checkout alone, OTHER may be the same one.
"""

import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import repeat
from pathlib import Path
from typing import Annotated

import psycopg2
import typer
from msgspec import Struct

from benchmarks import ours
from benchmarks.contenders import ROOT, Bench, count_made
from benchmarks.files import KINDS, TABLES, Made, make_files
from benchmarks.server import count_rows, execute, make_partitions, running_server

NAMES = ("bulk", "large", "medium", "small", "repeat", "trickle", "start", "two", "four")


class Cost(Struct, frozen=True):
    """The seconds of the clock and of the processor."""

    clock: float
    processor: float


class Side(Struct, frozen=True):
    """One of the two: a checkout with its settings, in the background or at a terminal."""

    checkout: Path
    settings: dict[str, str]
    arguments: tuple[str, ...] = ()
    at_terminal: bool = False


@contextmanager
def _running(url: str, side: Side) -> Iterator[ours.Daemon]:
    """Runs the daemon of a side; if it has metrics, they are scraped each second."""
    with ours.running(url, None, side.checkout, side.arguments, side.at_terminal, **side.settings) as daemon:
        address = side.settings.get("METRICS_ADDRESS")
        if address is None:
            yield daemon
            return
        is_over = threading.Event()
        thread = threading.Thread(target=_scrape, args=(f"http://{address}/metrics", is_over))
        thread.start()
        try:
            yield daemon
        finally:
            is_over.set()
            thread.join()


def _scrape(address: str, is_over: threading.Event) -> None:
    while not is_over.wait(1.0):
        with urllib.request.urlopen(address) as answer:
            assert b"mobileye_files_total" in answer.read()


class Pairs:
    """The workloads of a side; each returns its cost."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._bulk = make_files(bench.folder / "bulk", [100_000] * 10, seed=1)
        self._large = make_files(bench.folder / "large", [1_000_000], seed=3)
        self._medium = make_files(bench.folder / "medium", [30_000] * 40, seed=9)
        self._small = make_files(bench.folder / "small", [12] * 10_000, seed=4)
        self._again = make_files(bench.folder / "again", [100_000] * 10, seed=1, indent=" ")

    def bulk(self, side: Side) -> Cost:
        """Loads 10 files of 100,000 rows."""
        return self._load(side, self._bulk)

    def large(self, side: Side) -> Cost:
        """Loads one file of 1,000,000 rows."""
        return self._load(side, self._large)

    def medium(self, side: Side) -> Cost:
        """Loads 40 files of 30,000 rows: too large for a shared transaction, several to a batch's bytes."""
        return self._load(side, self._medium)

    def small(self, side: Side) -> Cost:
        """Loads 10,000 files of 12 rows."""
        return self._load(side, self._small)

    def repeat(self, side: Side) -> Cost:
        """Loads 10 files of 100,000 rows that are all stored already."""
        return self._load(side, self._bulk, self._again)

    def two(self, side: Side) -> Cost:
        """Loads 10,000 files of 12 rows of the same hour by two daemons at once."""
        return self._share(side, 2)

    def four(self, side: Side) -> Cost:
        """The same by four daemons."""
        return self._share(side, 4)

    def trickle(self, side: Side) -> Cost:
        """Drops a file every 10 ms for 10 seconds; returns the median time until its rows are visible."""
        texts = [made.path.read_bytes() for made in self._small[:1000]]
        with self._bench.server.empty_database() as url, _running(url, side) as daemon:
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
            processor = daemon.processor_seconds() / len(texts)
        return Cost(statistics.median(delays.values()), processor)

    def start(self, side: Side) -> Cost:
        """Starts the daemon until it watches, with a database that has the tables."""
        with self._bench.server.empty_database() as url:
            with _running(url, side):
                pass
            started = time.perf_counter()
            with _running(url, side) as daemon:
                return Cost(time.perf_counter() - started, daemon.processor_seconds())

    def _share(self, side: Side, number: int) -> Cost:
        """Loads the small files by some daemons at once, each with a part of them in a folder of its own."""
        with self._bench.server.empty_database() as url, ExitStack() as stack:
            daemons = [stack.enter_context(_running(url, side)) for _ in range(number)]
            make_partitions(url)
            parts = [
                stack.enter_context(self._bench.copied(self._small[start::number]))[0]
                for start in range(number)
            ]
            before = sum(daemon.processor_seconds() for daemon in daemons)
            with ThreadPoolExecutor(number) as threads:
                seconds = max(threads.map(ours.Daemon.load, daemons, parts, repeat(len(self._small))))
            processor = sum(daemon.processor_seconds() for daemon in daemons) - before
            assert count_rows(url) == count_made(self._small)
        return Cost(seconds, processor)

    def _load(self, side: Side, *rounds: list[Made]) -> Cost:
        """Loads the files of each round; returns the cost of the last one."""
        count, cost = 0, Cost(0.0, 0.0)
        with self._bench.server.empty_database() as url, _running(url, side) as daemon:
            make_partitions(url)
            for files in rounds:
                count += len(files)
                with self._bench.copied(files) as (place, _):
                    before = daemon.processor_seconds()
                    seconds = daemon.load(place, count)
                    cost = Cost(seconds, daemon.processor_seconds() - before)
            rows = sum(execute(url, f"SELECT count(*) FROM mobileye_data.{t}")[0][0] for t in TABLES.values())
            assert rows == count_made(rounds[0]), f"{side} stored {rows} rows"
        return cost


def main(
    other: Annotated[Path, typer.Argument(help="The checkout to compare with, such as a git worktree.")],
    only: Annotated[list[str] | None, typer.Option(help=f"{', '.join(NAMES)}.")] = None,
    turns: Annotated[int, typer.Option(min=1)] = 5,
    setting: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for this checkout; metrics are scraped each second.")
    ] = None,
    view: Annotated[
        bool, typer.Option("--view", help="Both at a terminal: this one with its live view, OTHER --plain.")
    ] = False,
) -> None:
    """Prints for each workload both medians and the median of the ratios of each pair."""
    with running_server() as server, tempfile.TemporaryDirectory(prefix="benchmark-pairs-") as folder:
        settings = dict(pair.split("=", 1) for pair in setting or [])
        plain = ("--plain",) if view else ()
        both = Side(other.resolve(), {}, plain, view), Side(ROOT, settings, (), view)
        pairs = Pairs(Bench(server, Path(folder), turns))
        print(
            f"{'workload':<19}{'other, s':>10}{'this, s':>10}  other / this, of each pair (above 1: faster)"
        )
        for name in only or NAMES:
            workload: Callable[[Side], Cost] = getattr(pairs, name)
            theirs: list[Cost] = []
            mine: list[Cost] = []
            for turn in range(turns):
                # Each checkout begins in every other turn, because the speed of the machine drifts.
                for side, costs in ((both[0], theirs), (both[1], mine))[:: 1 if turn % 2 else -1]:
                    costs.append(workload(side))
                print(f"{name}: turn {turn + 1} of {turns}", file=sys.stderr)
            _show(name, [cost.clock for cost in theirs], [cost.clock for cost in mine])
            name = f"{name}, processor"
            _show(name, [cost.processor for cost in theirs], [cost.processor for cost in mine])


def _show(name: str, theirs: Sequence[float], mine: Sequence[float]) -> None:
    ratios = sorted(them / us for them, us in zip(theirs, mine, strict=True))
    shown = f"{statistics.median(ratios):.3f}  ({ratios[0]:.3f} to {ratios[-1]:.3f})"
    print(
        f"{name:<19}{statistics.median(theirs):>10.4f}{statistics.median(mine):>10.4f}  {shown}", flush=True
    )


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
