"""python -m tests.chaos: injects faults into the real daemon and proves that no row is lost or doubled."""

import json
import random
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.chaos import runner
from tests.chaos.catalogue import FULL_MINUTES, LEGS
from tests.chaos.oracle import FAULTS
from tests.chaos.runner import Result

_CONSOLE_WIDTH = 160


def main(
    minutes: Annotated[
        float, typer.Option(help="Of a run of all legs; volumes are in proportion.")
    ] = FULL_MINUTES,
    only: Annotated[list[str] | None, typer.Option(help="Only this leg; may be given again.")] = None,
    seed: Annotated[int | None, typer.Option(help="Repeats the choices of an earlier run.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results there, too.")] = None,
    naive: Annotated[
        bool, typer.Option("--naive", help="Put the naive program through the legs, too.")
    ] = False,
    jobs: Annotated[
        int, typer.Option(min=1, help="So many legs at a time, each with a server of its own.")
    ] = 1,
) -> None:
    """Runs the legs, prints one table, and exits with 1 if a leg fails."""
    if unknown := set(only or ()) - {leg.name for leg in LEGS}:
        raise typer.BadParameter(f"no such leg: {', '.join(sorted(unknown))}")
    chosen = [leg for leg in LEGS if not only or leg.name in only]
    seed = random.SystemRandom().randrange(2**31) if seed is None else seed
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        run = partial(runner.run_apart, minutes=minutes, seed=seed)
        longest_first = sorted(chosen, key=lambda leg: -leg.minutes)
        ours = {leg.name: _told(pool.submit(run, leg)) for leg in longest_first}
        others = {leg.name: _told(pool.submit(run, leg, naive=True)) for leg in chosen if naive and leg.naive}
        results, beside = [
            [futures[leg.name].result() for leg in chosen if leg.name in futures]
            for futures in (ours, others)
        ]
    Console(width=_CONSOLE_WIDTH).print(_table(results, beside, minutes, seed))
    if json_file:
        report = {"seed": seed, "minutes": minutes, "ours": _plain(results), "naive": _plain(beside)}
        json_file.write_text(json.dumps(report, indent=2))
    sys.exit(0 if all(result.is_good for result in results) else 1)


def _told(running: Future[Result]) -> Future[Result]:
    """Says what a leg has found as soon as it has."""
    console = Console(width=_CONSOLE_WIDTH, stderr=True)
    running.add_done_callback(
        lambda done: console.print(f"{done.result().leg.name}: {_found(done.result())}")
    )
    return running


def _table(results: Sequence[Result], beside: Sequence[Result], minutes: float, seed: int) -> Table:
    table = Table(title=f"seed {seed}, --minutes {minutes:g}", title_justify="left", show_lines=True)
    for column in ("leg", "volume", "target", "found", "verdict", *(["naive"] if beside else [])):
        table.add_column(column, overflow="fold")
    naive = {result.leg.name: _found(result) for result in beside}
    for result in results:
        volume = f"{result.done} of {result.wanted} {result.leg.unit}, {result.seconds:.0f} s"
        verdict = "good" if result.is_good else "FAILS"
        cells = [result.leg.name, volume, result.leg.target, _found(result), verdict]
        cells += [naive.get(result.leg.name, "-")] if beside else []
        table.add_row(*map(escape, cells))
    return table


def _found(result: Result) -> str:
    """All that is wrong, or that nothing is; then the figures."""
    counts = result.finding.counts
    rows = [f"{counts['rows']:,} rows"] if counts["rows"] else []
    complaints = result.shortfalls or ["0 of all"]
    return "; ".join([*rows, *complaints, *map(str, result.finding.figures)])


def _plain(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [
        {
            "leg": result.leg.name,
            "done": result.done,
            "wanted": result.wanted,
            "seconds": round(result.seconds, 1),
            "rows": result.finding.counts["rows"],
            "faults": {fault: result.finding.counts[fault] for fault in FAULTS},
            "figures": {figure.name: round(figure.value, 3) for figure in result.finding.figures},
            "shortfalls": result.shortfalls,
        }
        for result in results
    ]


if __name__ == "__main__":
    typer.run(main)
