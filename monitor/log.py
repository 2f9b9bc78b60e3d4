"""Writes log lines to standard error, as key=value or JSON: one for each outcome."""

import logging
import sys
from contextlib import suppress

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from config import LogFormat

Log = FilteringBoundLogger


class _StandardError:
    """Standard error as a log writer; a full disk or a closed terminal must not stop the loading."""

    def info(self, line: str) -> None:
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)  # noqa: T201

    warning = error = info


def make_log(log_format: LogFormat) -> Log:
    """Returns the log of the daemon."""
    renderer = structlog.processors.JSONRenderer() if log_format is LogFormat.JSON else _as_text
    lazy = structlog.wrap_logger(
        _StandardError(),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    # What is not bound is bound anew for each line, for a quarter of the line's time.
    log: Log = lazy.bind()
    return log


class _FromLibraries(logging.Handler):
    """A log handler that turns the warnings of libraries into lines like ours."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.warning("warning of a library", library=record.name, message=record.getMessage())


def adopt_libraries(log: Log) -> None:
    """Sends the warnings of libraries to our log, for example that watchdog has lost events."""
    logging.basicConfig(handlers=[_FromLibraries(log)], force=True)


_LOGFMT = structlog.processors.LogfmtRenderer(bool_as_flag=False)


def _as_text(logger: WrappedLogger, name: str, event: EventDict) -> str:
    """Formats an event: `2026-06-05T21:02:34.546Z info     loaded file=… rows=3`."""
    time, level, what = event.pop("timestamp"), event.pop("level"), event.pop("event")
    pairs = _LOGFMT(logger, name, event)
    return f"{time} {level:7} {what} {pairs}".rstrip()
