"""Times the function for AWS Lambda in AWS's emulator, cold and warm: python -m benchmarks.function.

The emulator starts the runtime at its first event, as the platform does, but does not fetch the zip.
"""

import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

import typer

from db import schema
from db.connection import Database
from tests.jobs.emulator import Function, Functions, unpacked
from tests.jobs.support import Bucket, bulk
from tests.seaweed import running_seaweed
from tests.support import report, running_server, statuses


def main(
    starts: int = typer.Option(5, help="Number of cold invocations."),
    calls: int = typer.Option(50, help="Number of warm invocations of each kind."),
    megabytes: int = typer.Option(200, help="Size of the text of a large object."),
) -> None:
    """Prints medians and the slowest in milliseconds, and what a large object takes."""
    with (
        unpacked() as platform,
        running_seaweed() as seaweed,
        running_server() as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        with closing(Database(server.url()).connect()) as connection:
            schema.apply(connection)
        bucket = Bucket(seaweed)
        functions = Functions(Path(folder), platform, {**bucket.settings, "DATABASE_URL": server.url()})
        try:
            _time(functions, bucket, starts, calls, megabytes)
        finally:
            functions.stop()


def _time(functions: Functions, bucket: Bucket, starts: int, calls: int, megabytes: int) -> None:
    cold, used = [], []
    for turn in range(starts):
        function = functions.start(timeout=300)
        event = bucket.queued(*_put(bucket, f"cold{turn}", 1))
        cold.append(_invoke(function, event))
        used.append(_processor(function))
        if turn < starts - 1:
            function.stop()
    _show("cold, one small object", cold)
    _show("processor until then", used)
    for count in (1, 10):
        warm, before = [], _processor(function)
        for turn in range(calls):
            event = bucket.queued(*_put(bucket, f"warm{count}-{turn}", count))
            warm.append(_invoke(function, event))
        _show(f"warm, {count} small", warm)
        typer.echo(f"processor for each: {(_processor(function) - before) / calls:.1f} ms")
    content, rows = bulk(megabytes)
    name = bucket.put("objects_detection_large.json.zst", content)
    before = _processor(function)
    seconds = _invoke(function, bucket.queued(name)) / 1000
    processor = (_processor(function) - before) / 1000
    peak = function.runtime().memory_full_info().rss / 1e6
    typer.echo(f"{megabytes} MB of text, {rows:,} rows: {seconds:.1f} s, {rows / seconds:,.0f} rows/s")
    typer.echo(f"processor for it: {processor:.1f} s")
    typer.echo(f"memory after it: {peak:.0f} MB")


def _put(bucket: Bucket, name: str, count: int) -> list[str]:
    contents = [statuses(report(vehicle=f"{name}-{n}")) for n in range(count)]
    return [bucket.put(f"vehicles_status_{name}-{n}.json", c) for n, c in enumerate(contents)]


def _invoke(function: Function, event: object) -> float:
    """Returns the milliseconds of an invocation that has to load all."""
    started = time.perf_counter()
    answer = function.invoke(event)
    assert answer == {"batchItemFailures": []}, answer
    return 1000 * (time.perf_counter() - started)


def _processor(function: Function) -> float:
    """Returns the milliseconds of processor that the runtime has used: other programs hardly change them."""
    times = function.runtime().cpu_times()
    return 1000.0 * float(times.user + times.system)


def _show(what: str, times: list[float]) -> None:
    typer.echo(f"{what}: median {statistics.median(times):.0f} ms, slowest {max(times):.0f} ms")


if __name__ == "__main__":
    typer.run(main)
