"""A bar at the terminal of standard error."""

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Console(Console):
    """A console that keeps the cursor: Ctrl+C ends these commands at once, and would leave it hidden."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


class Bar:
    """A bar for one step after the other, which is gone at the end."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, complete_style="cyan", finished_style="cyan"),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            console=_Console(stderr=True),
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
        )
        self._task = self._progress.add_task("", total=None)
        self._what = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, what: str, done: int, total: int) -> None:
        """Shows how many steps are done; another name begins another bar."""
        if what != self._what:
            self._what = what
            self._progress.reset(self._task, description=what, total=total, completed=done)
        self._progress.update(self._task, total=total, completed=done)

    def print(self, line: str) -> None:
        """Prints a line above the bar."""
        self._progress.console.print(Text(line), soft_wrap=True)
