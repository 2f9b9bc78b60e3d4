"""Injects faults into the real daemon and proves that no row is lost or doubled: python -m tests.chaos."""

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
from tests.chaos.catalogue import FULL_MINUTES, SCENARIOS
from tests.chaos.oracle import FAULTS
from tests.chaos.runner import Result

_CONSOLE_WIDTH = 160


def main(
    minutes: Annotated[
        float, typer.Option(help="Length of a run of all scenarios; volumes are in proportion.")
    ] = FULL_MINUTES,
    only: Annotated[list[str] | None, typer.Option(help="Run only this scenario; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of an earlier run, to repeat its choices.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the results to this file.")
    ] = None,
    naive: Annotated[
        bool, typer.Option("--naive", help="Also run the naive program through the scenarios.")
    ] = False,
    jobs: Annotated[
        int, typer.Option(min=1, help="Number of scenarios at a time, each with its own server.")
    ] = 1,
) -> None:
    """Runs the scenarios and prints one table; exits with 1 if a scenario fails."""
    if unknown := set(only or ()) - {scenario.name for scenario in SCENARIOS}:
        raise typer.BadParameter(f"no such scenario: {', '.join(sorted(unknown))}")
    chosen = [scenario for scenario in SCENARIOS if not only or scenario.name in only]
    seed = random.SystemRandom().randrange(2**31) if seed is None else seed
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        run = partial(runner.run_apart, minutes=minutes, seed=seed)
        longest_first = sorted(chosen, key=lambda scenario: -scenario.minutes)
        ours = {scenario.name: _reported(pool.submit(run, scenario)) for scenario in longest_first}
        others = {
            scenario.name: _reported(pool.submit(run, scenario, naive=True))
            for scenario in chosen
            if naive and scenario.naive
        }
        results, beside = [
            [futures[scenario.name].result() for scenario in chosen if scenario.name in futures]
            for futures in (ours, others)
        ]
    Console(width=_CONSOLE_WIDTH).print(_table(results, beside, minutes, seed))
    if json_file:
        report = {"seed": seed, "minutes": minutes, "ours": _plain(results), "naive": _plain(beside)}
        json_file.write_text(json.dumps(report, indent=2))
    sys.exit(0 if all(result.is_good for result in results) else 1)


def _reported(running: Future[Result]) -> Future[Result]:
    """Prints what a scenario has found as soon as it ends."""
    console = Console(width=_CONSOLE_WIDTH, stderr=True)
    running.add_done_callback(
        lambda done: console.print(f"{done.result().scenario.name}: {_formatted(done.result())}")
    )
    return running


def _table(results: Sequence[Result], beside: Sequence[Result], minutes: float, seed: int) -> Table:
    table = Table(title=f"seed {seed}, --minutes {minutes:g}", title_justify="left", show_lines=True)
    for column in ("scenario", "volume", "target", "found", "verdict", *(["naive"] if beside else [])):
        table.add_column(column, overflow="fold")
    naive = {result.scenario.name: _formatted(result) for result in beside}
    for result in results:
        volume = f"{result.done} of {result.wanted} {result.scenario.unit}, {result.seconds:.0f} s"
        verdict = "good" if result.is_good else "FAILS"
        cells = [result.scenario.name, volume, result.scenario.target, _formatted(result), verdict]
        cells += [naive.get(result.scenario.name, "-")] if beside else []
        table.add_row(*map(escape, cells))
    return table


def _formatted(result: Result) -> str:
    """Formats the faults, or that there are none, and the figures."""
    counts = result.finding.counts
    rows = [f"{counts['rows']:,} rows"] if counts["rows"] else []
    complaints = result.shortfalls or ["no faults"]
    return "; ".join([*rows, *complaints, *map(str, result.finding.figures)])


def _plain(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [
        {
            "scenario": result.scenario.name,
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
