"""The library that makes log lines, imported without the one that it would draw tracebacks with."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Makes a package that is not imported yet look as if it was not installed."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # so Python marks what can't be imported
    try:
        yield
    finally:
        del sys.modules[package]


# structlog imports rich if it can, a fifth of the daemon's start; our log lines have no traceback.
with _hidden("rich"):
    import structlog as structlog
    from structlog.typing import EventDict as EventDict
    from structlog.typing import FilteringBoundLogger as FilteringBoundLogger
    from structlog.typing import WrappedLogger as WrappedLogger
