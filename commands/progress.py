"""Shows at a terminal how far a command has come; elsewhere nothing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from db.row_audit import Progress, no_progress

Report = Callable[[str], None]


@contextmanager
def shown(report: Report) -> Iterator[tuple[Progress, Report]]:
    """Yields what takes the progress, and what prints lines beside it; standard output stays as it is."""
    if not sys.stderr.isatty():
        yield no_progress, report
        return
    # Here, because only a terminal needs it.
    from commands.progress_bar import Bar

    with Bar() as bar:
        # If standard output is the terminal, too, the bar has to make room for each line.
        yield bar.update, bar.print if sys.stdout.isatty() else report
