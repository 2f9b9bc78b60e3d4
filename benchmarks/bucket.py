"""Compares a bucket with a folder, in pairs, and with plain loops of boto3, on the same files."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import report
from benchmarks.alternatives import boto3_loop
from benchmarks.contenders import ROOT, Bench, count_made
from benchmarks.files import FIRST_DAY, Made, make_files
from benchmarks.fleet import WARM_UP, count_differences, running_fleet
from benchmarks.places import PREFIX, Place, bucket_place, folder_place
from benchmarks.report import Figures, Ratio
from benchmarks.server import running_server
from tests.seaweed import Seaweed, running_seaweed

#: The files of each workload, by their rows.
WORKLOADS = {"bulk": [100_000] * 10, "small": [12] * 2_000}

#: Objects that share a COMMIT in the loop that is written for speed.
_TOGETHER = 100


def bucket(
    only: Annotated[list[str] | None, typer.Option(help=f"Only this: {', '.join(WORKLOADS)}.")] = None,
    turns: Annotated[int, typer.Option(min=1, help="Number of turns of each contender.")] = 5,
) -> None:
    """Prints the medians, and the ratios of each pair."""
    figures: list[Figures] = []
    ratios: list[Ratio] = []
    with (
        running_server() as server,
        running_seaweed() as seaweed,
        tempfile.TemporaryDirectory(prefix="benchmark-files-") as folder,
    ):
        contest = Contest(Bench(server, Path(folder), turns), seaweed)
        for name in only or WORKLOADS:
            more_figures, more_ratios = contest.run(
                name, make_files(Path(folder) / name, WORKLOADS[name], seed=7)
            )
            figures += more_figures
            ratios += more_ratios
        report.show(figures, ratios, {**report.environment(), "server": server.version()})


class Contest:
    """The contenders, who load the same files in turns."""

    def __init__(self, bench: Bench, seaweed: Seaweed) -> None:
        self._bench = bench
        self._seaweed = seaweed
        day = FIRST_DAY + timedelta(days=1)
        self._warm_up = make_files(bench.folder / "warm-up", [12] * WARM_UP, seed=8, day=day)

    def run(self, name: str, files: Sequence[Made]) -> tuple[list[Figures], list[Ratio]]:
        """Lets the contenders take their turns."""
        contenders: dict[str, Callable[[], float]] = {
            "folder": lambda: self._from_folder(files),
            "bucket": lambda: self._from_bucket(files),
        }
        if name == "small":
            contenders["boto3 loop"] = lambda: self._loop(files, 1)
            contenders["boto3 loop, in batches"] = lambda: self._loop(files, _TOGETHER)
        figures = self._bench.take_turns(name, "rows/s", contenders)
        for contender, row in figures.items():
            row.remark = boto3_loop.LACKS if contender.startswith("boto3") else ""
        target = {"folder": "≥ 0.8" if name == "bulk" else ""}
        others = [other for other in figures if other != "bucket"]
        return list(figures.values()), [
            report.ratio(
                figures["bucket"], figures[other], f"{name}: bucket / {other}", target.get(other, "")
            )
            for other in others
        ]

    def _from_folder(self, files: Sequence[Made]) -> float:
        with folder_place() as place:
            return self._ours(place, files)

    def _from_bucket(self, files: Sequence[Made]) -> float:
        with bucket_place(self._seaweed) as place:
            return self._ours(place, files)

    def _ours(self, place: Place, files: Sequence[Made]) -> float:
        with self._bench.server.database() as url, running_fleet(place, url, 1) as fleet:
            load = fleet.load(self._warm_up, files)
            assert load.differences == 0, f"{load.differences} rows differ"
            return load.rows / load.seconds

    def _loop(self, files: Sequence[Made], objects: int) -> float:
        with self._bench.server.database() as url, bucket_place(self._seaweed) as place:
            place.put(files)
            command = [sys.executable, "-m", boto3_loop.__name__, place.bucket, PREFIX, url, str(objects)]
            environment = {**os.environ, **place.settings, "AWS_ENDPOINT_URL_S3": self._seaweed.url}
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"boto3 loop: {done.stderr[-2000:]}")
            assert count_differences(url, files) == 0 and place.is_empty()
            return count_made(list(files)) / float(done.stdout.split()[-1])
