"""Renders the state of the daemon for a terminal of any width; draws nothing."""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from monitor.tally import LargeFile, View
from processing.counted import counted, noun

#: The width of the names at the left, with the space behind them.
_LABEL = 10

#: Bars of so many large files; the others are counted.
_BARS = 4

#: From so many columns on there is room for more than the percentage and the time left.
_ROOM_FOR_RATE, _ROOM_FOR_BYTES = 64, 84

#: From so many columns on there is room for the time since the start.
_ROOM_FOR_TIME = 32

TROUBLE, ATTENTION, _LABELS = "bold red", "yellow", "dim"


def panel(view: View, width: int) -> RenderableType:
    """Returns the panel, at most `width` columns wide; its first lines are the most important."""
    rates = [count(view.files_per_second, "file/s"), count(view.rows_per_second, f"{view.unit}/s")]
    rows: list[RenderableType] = [
        head(f"{view.folder} → {view.place}" if view.folder else "starting", view.seconds, width),
        *row("state", _states(view), width),
        *row("total", _totals(view), width),
        *row("now", rates, width),
        *_bars(view, width),
    ]
    if len(view.large) > _BARS:
        rows += row("", [Text(f"and {counted(len(view.large) - _BARS, 'more large file')}")], width)
    return Group(*rows)


def head(place: str, seconds: int, width: int) -> Text:
    """Returns the first line: from where to where it loads, and for how long."""
    uptime = f" {duration(seconds)} ─" if width >= _ROOM_FOR_TIME else ""
    room = width - len(uptime) - 5
    if cell_len(place) > room:  # the ends tell most
        place = f"{place[: (room - 1) // 2]}…{place[-(room // 2) :]}"
    line = Text("── ", _LABELS).append(place, "bold not dim").append(" ")
    return line.append("─" * (width - line.cell_len - len(uptime)) + uptime)


def _bars(view: View, width: int) -> list[RenderableType]:
    """Returns the bar of the backlog, or a line instead of it, and those of large files, aligned."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.width = width
    grid.add_column(width=max(_LABEL, width // 4) - 1 if view.large else _LABEL - 1, no_wrap=True)
    grid.add_column(ratio=1)
    for _ in range(_numbers(width)):
        grid.add_column(no_wrap=True, justify="right")
    rows: list[RenderableType] = []
    if (work := view.backlog) is not None:
        numbers = "", f"{counted(work.left, 'file')} to go", _left(work.seconds_left)
        _add_bar(grid, Text("backlog", _LABELS), work.done, work.done + work.left, numbers, width)
    else:
        ready = counted(view.ready, "file") if view.ready else "none"
        rows += row("backlog", [Text(ready, "" if view.ready else "dim")], width)
    for file in view.large[:_BARS]:
        _add_bar(grid, Text(file.file), file.read_bytes, file.size, _progress(file, view.unit), width)
    return [*rows, grid] if grid.row_count else rows


def _progress(file: LargeFile, unit: str) -> tuple[str, str, str]:
    sizes = f"{_megabytes(file.read_bytes)} of {_megabytes(file.size)} MB"
    return sizes, f"{file.rows_per_second:,.0f} {unit}s/s", _left(file.seconds_left)


def _numbers(width: int) -> int:
    """Returns how many numbers a bar has: the percentage and the time left, and more where there is room."""
    return 2 + (width >= _ROOM_FOR_RATE) + (width >= _ROOM_FOR_BYTES)


def _add_bar(
    grid: Table, name: Text, done: int, size: int, numbers: tuple[str, str, str], width: int
) -> None:
    name.overflow = "ellipsis"
    bar = ProgressBar(max(1, size), min(done, size), complete_style="cyan", finished_style="cyan")
    grid.add_row(name, bar, _percent(done, size), *numbers[4 - _numbers(width) :])


def _totals(view: View) -> list[Text]:
    return [
        count(view.loaded, "file"),
        count(view.rows, view.unit),
        count(view.duplicate, "duplicate file"),
        count(view.rejected, "reject", ATTENTION),
        count(view.failed, "failed file", TROUBLE),
    ]


def _states(view: View) -> list[Text]:
    if not view.folder and not view.troubles:
        return [Text("starting", "dim")]
    busy = f"workers {view.busy} of {view.workers} busy" if view.workers else ""
    observer = f"observer {view.observer}" if view.observer else ""
    states = dict.fromkeys(("folder", "bucket", "queue", "database", "Kafka"), "")
    states |= {"observer": observer, "workers": busy}
    if view.folder:
        states[view.destination] = f"{view.destination} ok"
    shown = [
        Text(f"{name}: {view.troubles[name]}", TROUBLE) if name in view.troubles else Text(state)
        for name, state in states.items()
        if state or name in view.troubles
    ]
    if view.waiting:
        shown.append(Text(f"{counted(view.waiting, 'file')} not ready", ATTENTION))
    if view.deaths:
        shown.append(Text(counted(view.deaths, "worker death"), TROUBLE))
    return shown


def row(label: str, pieces: Sequence[Text], width: int) -> list[RenderableType]:
    """Returns lines of pieces, none of which is broken if it fits into a line."""
    room = width - _LABEL
    return [
        Text(label.ljust(_LABEL) if number == 0 else " " * _LABEL, _LABELS).append_text(line)
        for number, line in enumerate(_fitted(pieces, room))
    ]


def _fitted(pieces: Sequence[Text], room: int) -> Iterator[Text]:
    line = Text(style="not dim")
    for piece in pieces:
        if line and line.cell_len + 3 + piece.cell_len > room:
            yield line
            line = Text(style="not dim")
        if line:
            line.append("   ")
        line.append_text(piece)
        line.truncate(room, overflow="ellipsis")
    yield line


def count(number: float, what: str, style: str = "") -> Text:
    """Returns a number with its unit, dim if it is none, else in the style."""
    unit, slash, per = what.partition("/")
    shown = f"{number:,.1f}" if 0 < number < 10 and slash else f"{number:,.0f}"
    text = f"{shown} {noun(round(number, 1), unit)}{slash}{per}"
    return Text(text, style if number else "dim")


def _percent(done: int, size: int) -> str:
    return f"{100 * done // max(1, size):>3} %"


def _megabytes(number: int) -> str:
    return f"{number / 1e6:,.0f}"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{duration(int(seconds))} left"


def duration(seconds: int) -> str:
    """Returns a time span with its two largest units."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02} min"
    if minutes:
        return f"{minutes} min" if minutes >= 10 else f"{minutes} min {seconds % 60:02} s"
    return f"{seconds} s"
