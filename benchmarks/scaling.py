"""Measures 1, 2 and 4 daemons on one folder and on one bucket, and prints the tables of docs/scaling.md."""

import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import psutil
import typer
from msgspec import Struct

from benchmarks import report
from benchmarks.files import FIRST_DAY, Made, make_files
from benchmarks.fleet import WARM_UP, Load, running_fleet
from benchmarks.places import Place, bucket_place, folder_place
from benchmarks.server import Server, running_server
from processing.counted import counted
from tests.seaweed import Seaweed, running_seaweed

DAEMONS = (1, 2, 4)

#: Events that are shown by themselves; all others are one column.
_SHOWN = ("at work", "waits for the daemon", "no transaction")

_HEAD = """
| place | files | daemons | rows/s | files/s | ratio to one | cores used, of {cores} | daemons | PostgreSQL \
| S3 server | connections | sessions at work | wait for the daemon | no transaction | wait for the rest \
| differences |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"""


class Work(Struct, frozen=True):
    """Files to load: what they are called, and how many rows each has."""

    name: str
    rows: int
    counts: dict[str, int]  # of files, by place: a bucket takes its time for each


BULK = Work("large", 25_000, {"folder": 32, "bucket": 32})
SMALL = Work("small", 12, {"folder": 8_000, "bucket": 2_000})


def scaling(
    workers: Annotated[int, typer.Option(min=1, help="Worker processes of each daemon.")] = 1,
    daemons: Annotated[list[int] | None, typer.Option(help="Only so many daemons; may be repeated.")] = None,
    place: Annotated[str | None, typer.Option(help="Only the folder, or only the bucket.")] = None,
) -> None:
    """Loads the same files with 1, 2 and 4 daemons, and prints tables in Markdown."""
    facts = report.environment()
    with (
        running_server() as server,
        running_seaweed() as seaweed,
        tempfile.TemporaryDirectory(prefix="benchmark-files-") as folder,
    ):
        print(
            f"{facts['date']}, {facts['machine']}, {server.version()}, {counted(workers, 'worker')} a daemon."
        )
        print(_HEAD.format(cores=psutil.cpu_count()))
        loads = []
        for work in (BULK, SMALL):
            made = make_files(Path(folder) / work.name, [work.rows] * max(work.counts.values()), seed=13)
            for name in [place] if place else ["folder", "bucket"]:
                files = made[: work.counts[name]]
                rates: list[float] = []
                for count in daemons or DAEMONS:
                    load = _run(server, _place(name, seaweed), Path(folder), files, count, workers)
                    rates.append(load.rows / load.seconds)
                    loads.append((f"{name}, {work.name}, {count}", load))
                    print(_row(name, work, count, load, rates[-1] / rates[0]), flush=True)
    print(_waits(loads))
    if any(load.differences for _, load in loads):
        sys.exit(1)


def _place(name: str, seaweed: Seaweed) -> AbstractContextManager[Place]:
    return folder_place() if name == "folder" else bucket_place(seaweed)


def _run(
    server: Server,
    making: AbstractContextManager[Place],
    folder: Path,
    files: Sequence[Made],
    count: int,
    workers: int,
) -> Load:
    warm_up = make_files(
        folder / f"warm-up-{count}", [12] * (WARM_UP * count), seed=14, day=FIRST_DAY + timedelta(days=1)
    )
    with (
        server.database() as url,
        making as place,
        running_fleet(place, url, count, WORKERS=workers) as fleet,
    ):
        return fleet.load(warm_up, files)


def _row(place: str, work: Work, count: int, load: Load, ratio: float) -> str:
    waits = [load.waits.get(event, 0.0) for event in _SHOWN]
    waits.append(max(0.0, 1 - sum(waits)))
    cells = [
        place,
        f"{load.files:,} {work.name}",
        str(count),
        f"{load.rows / load.seconds:,.0f}",
        f"{load.files / load.seconds:,.1f}",
        f"{ratio:.2f}",
        f"{load.share_of_cores * (psutil.cpu_count() or 1):.2f}",
        *(f"{seconds:.1f} s" if seconds else "" for seconds in load.processor.values()),
        str(load.connections),
        *(f"{share:.0%}" for share in waits),
        str(load.differences),
    ]
    return f"| {' | '.join(cells)} |"


def _waits(loads: Sequence[tuple[str, Load]]) -> str:
    """Returns what each row costs, and the five most frequent events of the workers' sessions."""
    lines = [
        "",
        "| run | seconds | what a row costs: daemons, PostgreSQL, S3 server | log | stored "
        "| what the workers' sessions did |",
        "|---|---|---|---|---|---|",
    ]
    for name, load in loads:
        events = [f"{event} {share:.0%}" for event, share in list(load.waits.items())[:5] if share >= 0.01]
        microseconds = [f"{1e6 * seconds / load.rows:.2f}" for seconds in load.processor.values()]
        cells = [
            name,
            f"{load.seconds:.1f}",
            f"{' + '.join(microseconds)} µs",
            f"{load.log_bytes / load.rows:.0f} B",
            f"{load.stored_bytes / load.rows:.0f} B",
            ", ".join(events),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
