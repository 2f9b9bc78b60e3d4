"""python -m benchmarks.walk: counts the files and functions of ours that one small file crosses.

From the event of its arrival on, in a daemon and a worker that have loaded others before. A comprehension
or a generator expression is no function of its own.
"""

import re
import tempfile
import time
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from benchmarks.files import KINDS, Fleet
from benchmarks.ours import ROOT, running
from benchmarks.server import running_server

_WARM_UP_FILES = 20
_ROWS = 12

#: No scan by the clock may come in between.
_NO_RESCAN = 86_400

#: Far longer than the daemon needs to record the outcome of a file that is removed already.
_RECORDING_SECONDS = 1.0

_REMOVAL = "removal"

_COMPREHENSION = re.compile(r"<(listcomp|setcomp|dictcomp|genexpr)>$")


class Step(NamedTuple):
    """The first call of a function in one of the processes, or the removal of the file."""

    at: int
    process: str
    path: str
    function: str


def main(
    listing: Annotated[bool, typer.Option("--list", help="Print each function, by its first call.")] = False,
) -> None:
    """Prints how many there are until the file is removed, and until the daemon has recorded its outcome."""
    folder = tempfile.TemporaryDirectory(prefix="benchmark-walk-")
    with folder, running_server() as server, server.database() as url:
        steps = _walk(Path(folder.name), url)
    print("until it is removed:", _counts(list(takewhile(lambda step: step.function != _REMOVAL, steps))))
    print("until it is recorded:", _counts(steps))
    for process in ("daemon", "worker") if listing else ():
        print(f"\n{process}")
        for step in steps:
            if step.process == process:
                print(f"  {step.path:34}{step.function}")


def _counts(steps: list[Step]) -> str:
    """Files and functions in all, then by process; what both processes call counts once in all."""
    parts = [_count("in all", steps)]
    parts += [_count(name, [step for step in steps if step.process == name]) for name in ("daemon", "worker")]
    return "; ".join(parts)


def _count(name: str, steps: list[Step]) -> str:
    functions = {(step.path, step.function) for step in steps if step.function != _REMOVAL}
    return f"{name} {len({path for path, _ in functions})} files, {len(functions)} functions"


def _walk(folder: Path, url: str) -> list[Step]:
    """Loads a few files, then one more with the tracer armed; its steps in order of time."""
    (trace := folder / "trace").mkdir()
    armed = trace / "armed"
    armed.write_bytes(b"\0")
    fleet = Fleet(seed=1)
    for number in range(_WARM_UP_FILES + 1):
        place = folder / ("last" if number == _WARM_UP_FILES else "first")
        fleet.make(place, KINDS[number % 2], _ROWS, number)
    tracer = ROOT / "benchmarks" / "tracer"
    with running(url, WORKERS=1, RESCAN_SECONDS=_NO_RESCAN, PYTHONPATH=tracer, TRACE=trace) as daemon:
        daemon.load(folder / "first", _WARM_UP_FILES)
        time.sleep(_RECORDING_SECONDS)
        _arm(armed, b"\1")
        daemon.load(folder / "last", _WARM_UP_FILES + 1)
        time.sleep(_RECORDING_SECONDS)
        _arm(armed, b"\0")  # the end of the daemon is no part of the walk
        return sorted(_steps(trace, daemon.process.pid))


def _arm(armed: Path, value: bytes) -> None:
    with open(armed, "r+b") as file:  # cutting a file that is mapped would crash who reads it
        file.write(value)


def _steps(trace: Path, daemon: int) -> Iterator[Step]:
    for notes in trace.glob("[0-9]*"):
        process = "daemon" if notes.name == str(daemon) else "worker"
        for line in notes.read_text().splitlines():
            at, path, function = line.split(" ", 2)
            if not _COMPREHENSION.search(function):
                yield Step(int(at), process, path, function)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
