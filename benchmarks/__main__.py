"""Compares ours, the limit and the alternatives on the same files and tables: python -m benchmarks.

python -m benchmarks answers asks questions instead; bucket compares a bucket with a folder, scaling several
daemons with one, streams Apache Kafka with the direct way.
"""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import report
from benchmarks.answers import answers
from benchmarks.bucket import bucket
from benchmarks.contenders import Bench
from benchmarks.scaling import scaling
from benchmarks.server import running_server
from benchmarks.streams import streams
from benchmarks.works import WORKLOADS


def main(
    context: typer.Context,
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"Run only this workload; may be repeated. One of: {', '.join(WORKLOADS)}."),
    ] = None,
    turns: Annotated[int, typer.Option(min=1, help="Number of turns of each contender.")] = 5,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the figures to this file.")] = None,
) -> None:
    """Prints the medians, and each ratio with its target."""
    if context.invoked_subcommand:
        return
    figures: list[report.Figures] = []
    ratios: list[report.Ratio] = []
    facts = report.environment()
    with running_server() as server, tempfile.TemporaryDirectory(prefix="benchmark-files-") as folder:
        facts["server"] = server.version()
        for name in only or WORKLOADS:
            print(name, file=sys.stderr)
            more_figures, more_ratios = WORKLOADS[name](Bench(server, Path(folder), turns))
            figures += more_figures
            ratios += more_ratios
    report.show(figures, ratios, facts)
    if json:
        report.keep(json, figures, ratios, facts)
    if plot:
        report.plot(plot, figures, facts)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback(invoke_without_command=True)(main)
    app.command()(answers)
    app.command()(bucket)
    app.command()(scaling)
    app.command()(streams)
    app()
