"""Writes the figures of a run as a table, as JSON and as a picture."""

import json
import platform
import statistics
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass
class Figures:
    """The figures of one contender in one workload, one a turn; if the unit is a time, less is better."""

    workload: str
    contender: str
    unit: str
    values: list[float] = field(default_factory=list)
    remark: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Ratio:
    """A ratio of ours to another contender, turn by turn, and its target."""

    name: str
    value: float
    target: str


def ratio(ours: Figures, others: Figures, name: str, target: str) -> Ratio:
    """Returns the median of the ratios of each turn."""
    ratios = [mine / theirs for mine, theirs in zip(ours.values, others.values, strict=True)]
    return Ratio(name, statistics.median(ratios), target)


def environment() -> dict[str, Any]:
    """Returns the machine, the versions and the date."""
    packages = ("psycopg2-binary", "ijson", "msgspec", "pandas", "polars", "duckdb", "dlt")
    return {
        "date": subprocess.run(["date", "-u", "+%Y-%m-%d"], capture_output=True, text=True).stdout.strip(),
        "machine": f"{_processor()}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
    }


def _version(package: str) -> str:
    """Returns the version, if it is installed: without alternatives some workloads need none of them."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def show(figures: list[Figures], ratios: list[Ratio], facts: dict[str, Any]) -> None:
    console = Console(width=150, highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()))
    table = Table("workload", "contender", "median", "min", "max", "unit", "turns", "remark", show_edge=False)
    for row in figures:
        spread = [f"{value:,.4g}" if value < 1000 else f"{value:,.0f}" for value in _spread(row)]
        table.add_row(row.workload, row.contender, *spread, row.unit, str(len(row.values)), row.remark)
    console.print(table)
    table = Table("ratio", "reached", "target", show_edge=False)
    for ratio in ratios:
        table.add_row(ratio.name, f"{ratio.value:.2f}", ratio.target)
    console.print(table)


def keep(path: Path, figures: list[Figures], ratios: list[Ratio], facts: dict[str, Any]) -> None:
    content = {
        "environment": facts,
        "figures": [vars(row) for row in figures],
        "ratios": [vars(ratio) for ratio in ratios],
    }
    path.write_text(json.dumps(content, indent=1))


def plot(path: Path, figures: list[Figures], facts: dict[str, Any]) -> None:
    """Draws a panel for each workload with several rates: a bar to the median, whiskers from min to max."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    panels = _panels(figures)
    heights = [1 + len(rows) for rows in panels]
    canvas, axes = pyplot.subplots(
        len(panels), 1, figsize=(8, 0.3 * sum(heights)), squeeze=False, height_ratios=heights
    )
    for axis, rows in zip(axes[:, 0], panels, strict=True):
        is_race = any(row.contender == "ours" for row in rows)
        colours = ["tab:gray" if is_race and row.contender != "ours" else "tab:green" for row in rows]
        spreads = [[row.median - min(row.values), max(row.values) - row.median] for row in rows]
        bars = axis.barh(
            [row.contender for row in rows],
            [row.median for row in rows],
            xerr=list(zip(*spreads, strict=True)),
            color=colours,
        )
        axis.bar_label(bars, [f" {row.median:,.0f}" for row in rows], padding=6)
        axis.set_title(f"{rows[0].workload}, {rows[0].unit}", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.15)
    canvas.text(0.01, 0.005, f"{facts['date']}, {facts['machine']}", fontsize=7)
    canvas.tight_layout(rect=(0, 0.02, 1, 1))
    canvas.savefig(path, dpi=120)


def _spread(row: Figures) -> tuple[float, float, float]:
    return row.median, min(row.values), max(row.values)


def _panels(figures: list[Figures]) -> list[list[Figures]]:
    """Returns the rates of each workload from the lowest bar up: contenders by rank, our cases in order."""
    panels = []
    for workload in dict.fromkeys(row.workload for row in figures):
        rows = [row for row in reversed(figures) if row.workload == workload]
        if len(rows) > 1 and rows[0].unit.endswith("/s"):
            is_race = any(row.contender == "ours" for row in rows)
            panels.append(sorted(rows, key=lambda row: row.median) if is_race else rows)
    return panels


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
