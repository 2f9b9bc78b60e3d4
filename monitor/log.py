"""Writes log lines to standard error, as key=value or JSON: one for each outcome."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import cast

from config import LogFormat, LogLevel
from monitor.line_writer import LineWriter, standard_error
from monitor.log_library import EventDict, FilteringBoundLogger, WrappedLogger, structlog

Log = FilteringBoundLogger

LIBRARY_WARNING = "warning of a library"
LINES_DROPPED = "log lines dropped"


#: How long the end of the program waits for a reader who does not read.
_FLUSH_SECONDS = 1.0


@contextmanager
def open_log(log_format: LogFormat, level: LogLevel) -> Iterator[Log]:
    """Yields the log of the daemon, whose lines never hold up the caller; flushes it at the end."""
    fd = standard_error()
    if fd is None:
        yield make_log(log_format, level=level)
        return
    notice = make_log(log_format, str)
    writer = LineWriter(
        fd,
        lambda dropped: cast(str, notice.warning(LINES_DROPPED, lines=dropped, reason="nobody took them")),
    )
    try:
        yield make_log(log_format, writer.write, level)
    finally:
        writer.close(_FLUSH_SECONDS)


def _print(line: str) -> None:
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)  # noqa: T201


class _Writer:
    """A function that writes lines, as the logger that structlog expects."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self.info = self.warning = self.error = write


def make_log(
    log_format: LogFormat, write: Callable[[str], object] = _print, level: LogLevel = LogLevel.INFO
) -> Log:
    """Returns a log whose lines of the level, and of higher ones, are written by the function.

    Its methods return what the function returns.
    """
    renderer = structlog.processors.JSONRenderer() if log_format is LogFormat.JSON else _as_text
    lazy = structlog.wrap_logger(
        _Writer(write),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level.value),
    )
    # What is not bound is bound anew for each line, for a quarter of the line's time.
    log: Log = lazy.bind()
    return log


class _FromLibraries(logging.Handler):
    """A log handler that turns the warnings of libraries into lines like ours."""

    def __init__(self, warn: Callable[..., object]) -> None:
        super().__init__(logging.WARNING)
        self._warn = warn

    def emit(self, record: logging.LogRecord) -> None:
        self._warn(LIBRARY_WARNING, library=record.name, message=record.getMessage())


def adopt_libraries(warn: Callable[..., object]) -> None:
    """Turns the warnings of libraries into lines of ours, for example that watchdog has lost events."""
    logging.basicConfig(handlers=[_FromLibraries(warn)], force=True)


def _as_text(logger: WrappedLogger, name: str, event: EventDict) -> str:
    """Formats an event: `2026-06-05T21:02:34.546Z info     loaded file=… rows=3`."""
    time, level, what = event.pop("timestamp"), event.pop("level"), event.pop("event")
    return f"{time} {level:7} {what} {logfmt(event)}".rstrip()


def logfmt(fields: EventDict) -> str:
    """Formats fields as structlog's LogfmtRenderer does, which looks at each letter of each name.

    That was a tenth of the daemon's time for small files.
    """
    return " ".join(
        [f"{name}={value if type(value) is int else _shown(value)}" for name, value in fields.items()]
    )


def _shown(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    text = str(value)
    if not (" " in text or "=" in text or '"' in text):
        return text.replace("\n", "\\n")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
