"""Compares the way through Apache Kafka with the direct one, in turns, on the same files."""

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import ours, report, stream_connect, stream_delays, stream_faults
from benchmarks.contenders import Bench, count_made
from benchmarks.files import FIRST_DAY, make_files
from benchmarks.fleet import WARM_UP, count_differences, running_fleet
from benchmarks.places import FolderPlace, folder_place
from benchmarks.report import Figures, Ratio
from benchmarks.server import running_server
from benchmarks.topics import Cost, Stream, server_of, timed, until_stored
from tests.kafka import USUAL_JAVA, VERSION, Broker, running_broker
from tests.support import frozen

PARTS = ("speed", "delays", "connect", "faults")

#: What is measured, and what it is to reach of the direct way's rate.
_TARGETS = {"publish": "", "consume, 1": "≥ 0.7", "consume, 2": "≥ 0.7", "chain": "≥ 0.5"}


def streams(
    only: Annotated[list[str] | None, typer.Option(help=f"Only this: {', '.join(PARTS)}.")] = None,
    turns: Annotated[int, typer.Option(min=1, help="Number of turns of each contender.")] = 5,
    rows: Annotated[int, typer.Option(min=1, help="Rows of each of the ten files.")] = 100_000,
) -> None:
    """Prints the medians, and the ratios of each turn to the direct way."""
    figures: list[Figures] = []
    ratios: list[Ratio] = []
    load = f"load {os.getloadavg()[0]:.1f} to "
    with (
        running_server() as server,
        running_broker(USUAL_JAVA) as broker,
        tempfile.TemporaryDirectory(prefix="benchmark-files-") as folder,
    ):
        bench = Bench(server, Path(folder), turns)
        for part in only or PARTS:
            if part == "faults":
                print(stream_faults.markdown(stream_faults.compare(server, broker, Path(folder))))
                continue
            more_figures, more_ratios = _measure(part, bench, broker, rows)
            figures += more_figures
            ratios += more_ratios
        facts = {**report.environment(), "server": server.version(), "Kafka": VERSION}
        report.show(figures, ratios, {**facts, "machine's": f"{load}{os.getloadavg()[0]:.1f}"})


def _measure(part: str, bench: Bench, broker: Broker, rows: int) -> tuple[list[Figures], list[Ratio]]:
    if part == "speed":
        contest = Contest(bench, broker, rows)
        return contest.run(), contest.ratios()
    if part == "delays":
        return stream_delays.measure(bench.server, broker, bench.folder)
    return stream_connect.Reports(bench, broker).compare()


class Contest:
    """The direct way, and the parts of the way through topics, which load the same files in turns."""

    def __init__(self, bench: Bench, broker: Broker, rows: int) -> None:
        self._bench = bench
        self._broker = broker
        self._files = make_files(bench.folder / "bulk", [rows] * 10, seed=7)
        day = FIRST_DAY + timedelta(days=1)
        self._warm_up = make_files(bench.folder / "warm-up", [12] * WARM_UP, seed=8, day=day)
        names = ("direct", *_TARGETS)
        self._figures = {name: Figures("bulk", name, "rows/s") for name in names}

    def run(self) -> list[Figures]:
        """Lets them take their turns, each turn in another order, after one that warms the broker up."""
        self._chain()
        self._figures["chain"].values.clear()
        works = [self._direct, self._in_parts, self._chain]
        for turn in range(self._bench.turns):
            for work in works[turn % 3 :] + works[: turn % 3]:
                work()
        return list(self._figures.values())

    def ratios(self) -> list[Ratio]:
        """Returns the medians of the ratios of each turn."""
        direct = self._figures["direct"]
        return [
            report.ratio(self._figures[name], direct, f"{name} / direct", target)
            for name, target in _TARGETS.items()
        ]

    def _direct(self) -> None:
        """Loads the files from a folder into PostgreSQL, with the usual number of workers."""
        with folder_place() as place, self._bench.server.database() as url:
            with running_fleet(place, url, 1) as fleet:
                load = fleet.load(self._warm_up, self._files)
            assert load.differences == 0, f"{load.differences} rows differ"
            self._note("direct", Cost(load.seconds, load.processor))

    def _in_parts(self) -> None:
        """Publishes the files while nobody reads, then lets one and two consumers load them."""
        stream = Stream(self._broker)
        with ExitStack() as stack, folder_place() as place:
            urls = [stack.enter_context(self._bench.server.database()) for _ in range(2)]
            with stream.publisher(place) as publisher:
                groups = [
                    stack.enter_context(stream.consumers(url, count))
                    for count, url in enumerate(urls, start=1)
                ]
                self._warm(place, urls)
                for group in groups:
                    stack.enter_context(frozen(*group))
                with frozen(publisher):
                    place.put(self._files)
                with timed(publisher=[publisher], broker=[self._broker.pid]) as costs:
                    ours.wait_for(place.is_empty)
                self._note("publish", costs[0])
            for count, (url, group) in enumerate(zip(urls, groups, strict=True), start=1):
                self._note(f"consume, {count}", self._consume(url, group))

    def _consume(self, url: str, group: Sequence[int]) -> Cost:
        with timed(consumers=group, broker=[self._broker.pid], PostgreSQL=[server_of(url)]) as costs:
            for pid in group:
                os.kill(pid, signal.SIGCONT)
            until_stored(url, self._all_rows)
        for pid in group:  # the others are not to share the machine with it
            os.kill(pid, signal.SIGSTOP)
        self._check(url)
        return costs[0]

    def _chain(self) -> None:
        """Publishes the files while two consumers load them: from the first file to the last row."""
        stream = Stream(self._broker)
        with (
            folder_place() as place,
            self._bench.server.database() as url,
            stream.publisher(place) as publisher,
            stream.consumers(url, 2) as group,
        ):
            self._warm(place, [url])
            with frozen(publisher):
                place.put(self._files)
            server, broker = [server_of(url)], [self._broker.pid]
            with timed(publisher=[publisher], consumers=group, broker=broker, PostgreSQL=server) as costs:
                until_stored(url, self._all_rows)
            ours.wait_for(place.is_empty)
            self._check(url)
        self._note("chain", costs[0])

    def _warm(self, place: FolderPlace, urls: Sequence[str]) -> None:
        place.put(self._warm_up)
        for url in urls:
            until_stored(url, count_made(self._warm_up))

    def _check(self, url: str) -> None:
        """Checks that the tables have what is in the files, each row once."""
        differences = count_differences(url, [*self._warm_up, *self._files])
        assert differences == 0, f"{differences} rows differ"

    @property
    def _all_rows(self) -> int:
        return count_made([*self._warm_up, *self._files])

    def _note(self, name: str, cost: Cost) -> None:
        rows = count_made(self._files)
        self._figures[name].values.append(rows / cost.seconds)
        print(f"  {name}: {rows / cost.seconds:,.0f} rows/s, {cost.of_each(rows)}", file=sys.stderr)
