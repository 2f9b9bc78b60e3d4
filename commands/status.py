"""Shows what waits in the watch folder, what was loaded and what failed."""

import sys
import time
from datetime import UTC, datetime

from msgspec import Struct, json, to_builtins
from psycopg2.extensions import connection as Connection
from rich.console import Console
from rich.markup import escape

import watcher.scan
from config import Settings
from db import queries
from db.patience import ask
from db.queries import FileEntry, Totals

#: A ledger of a million files is added up in about a second.
_SECONDS = 60.0

_SHOWN = 5


class Backlog(Struct, frozen=True):
    """The files in the watch folder."""

    folder: str
    files: int
    bytes: int
    oldest_seconds: float | None


class Status(Struct, frozen=True):
    """The facts that the status command shows."""

    at: datetime
    backlog: Backlog
    totals: Totals
    last_files: list[FileEntry]
    last_failures: list[FileEntry]


def gather(settings: Settings, connection: Connection) -> Status:
    return ask(connection, lambda: _gather(settings, connection), seconds=_SECONDS)


def _gather(settings: Settings, connection: Connection) -> Status:
    return Status(
        datetime.now(UTC),
        _backlog(str(settings.folder)),
        queries.totals(connection),
        queries.last_files(connection, _SHOWN),
        queries.last_files(connection, _SHOWN, "failed"),
    )


def show(status: Status, as_json: bool) -> None:
    """Prints the status on standard output."""
    if as_json:
        sys.stdout.write(json.format(json.encode(to_builtins(status)), indent=2).decode() + "\n")
        return
    console = Console(highlight=False)
    for name, value in _facts(status):
        console.print(f"{name:<10} {escape(value)}", soft_wrap=True)
    for title, files in (("last files", status.last_files), ("last failures", status.last_failures)):
        if files:
            console.print(f"\n{title}")
        for file in files:
            console.print(f"{file.finished_at:%Y-%m-%d %H:%M:%S}  {escape(_formatted(file))}", soft_wrap=True)


def _facts(status: Status) -> list[tuple[str, str]]:
    backlog, totals = status.backlog, status.totals
    oldest = "" if backlog.oldest_seconds is None else f", the oldest for {backlog.oldest_seconds:.0f} s"
    return [
        ("waiting", f"{backlog.files:,} files, {backlog.bytes:,} bytes{oldest} in {backlog.folder}"),
        ("loaded", f"{totals.loaded_files:,} files"),
        ("failed", f"{totals.failed_files:,} files"),
        ("records", _formatted_counts(totals)),
        ("to fix", f"{totals.open_rejects:,} rejected records, see the view open_rejects"),
        ("latest", str(totals.last_finished_at or "nothing yet")),
    ]


def _formatted(file: FileEntry) -> str:
    """Formats the outcome of a file as one line."""
    counts = f"{_formatted_counts(file)} ({file.kind})" if file.state == "loaded" else file.error
    return f"{file.state:<6}  {file.name}  {counts}"


def _formatted_counts(file: FileEntry | Totals) -> str:
    parts = f"{file.rows_inserted:,} inserted + {file.rows_duplicate:,} duplicate"
    return f"{file.rows_read:,} = {parts} + {file.rows_rejected:,} rejected"


def _backlog(folder: str) -> Backlog:
    try:
        files = watcher.scan.waiting_files(folder)
    except OSError:
        files = []
    oldest = max((time.time() - status.st_mtime for _, status in files), default=None)
    return Backlog(folder, len(files), sum(status.st_size for _, status in files), oldest)
