"""What is waiting, what was loaded, what failed."""

import sys
import time
from datetime import UTC, datetime

from msgspec import Struct, json, to_builtins
from psycopg2.extensions import connection as Connection
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import watcher.scan
from config import Settings
from db import queries
from db.queries import FileEntry, Totals

_SHOWN = 5


class Backlog(Struct, frozen=True):
    """The files in the watch folder."""

    folder: str
    files: int
    bytes: int
    oldest_seconds: float | None


class Status(Struct, frozen=True):
    """Everything that status tells."""

    at: datetime
    backlog: Backlog
    totals: Totals
    last_files: list[FileEntry]
    last_failures: list[FileEntry]


def gather(settings: Settings, connection: Connection) -> Status:
    return Status(
        datetime.now(UTC),
        _backlog(str(settings.folder)),
        queries.totals(connection),
        queries.last_files(connection, _SHOWN),
        queries.last_failures(connection, _SHOWN),
    )


def show(status: Status, as_json: bool) -> None:
    """Prints it on standard output."""
    if as_json:
        sys.stdout.write(json.format(json.encode(to_builtins(status)), indent=2).decode() + "\n")
        return
    console = Console(highlight=False)
    for name, value in _facts(status):
        console.print(f"{name:<10} {escape(value)}", soft_wrap=True)
    if status.last_files:
        console.print()
        console.print(_table("Last files", status.last_files))
    if status.last_failures:
        console.print()
        console.print(_table("Last failures", status.last_failures))


def _facts(status: Status) -> list[tuple[str, str]]:
    backlog, totals = status.backlog, status.totals
    oldest = "" if backlog.oldest_seconds is None else f", the oldest for {backlog.oldest_seconds:.0f} s"
    return [
        ("waiting", f"{backlog.files:,} files, {backlog.bytes:,} bytes{oldest} in {backlog.folder}"),
        ("loaded", f"{totals.loaded_files:,} files"),
        ("failed", f"{totals.failed_files:,} files"),
        (
            "records",
            f"{totals.rows_read:,} = {totals.rows_inserted:,} inserted"
            f" + {totals.rows_duplicate:,} duplicate + {totals.rows_rejected:,} rejected",
        ),
        ("to mend", f"{totals.open_rejects:,} rejected records, see the view open_rejects"),
        ("latest", str(totals.last_finished_at or "nothing yet")),
    ]


def _table(title: str, files: list[FileEntry]) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False)
    for column in ("finished", "file", "state", "read", "inserted", "duplicate", "rejected", "error"):
        right = column in ("read", "inserted", "duplicate", "rejected")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for file in files:
        counts = (file.rows_read, file.rows_inserted, file.rows_duplicate, file.rows_rejected)
        finished = f"{file.finished_at:%Y-%m-%d %H:%M:%S}"
        cells = [finished, file.name, file.state, *map(str, counts), file.error or ""]
        table.add_row(*map(escape, cells))
    return table


def _backlog(folder: str) -> Backlog:
    try:
        files = watcher.scan.waiting_files(folder)
    except OSError:
        files = []
    oldest = max((time.time() - status.st_mtime for _, status in files), default=None)
    return Backlog(folder, len(files), sum(status.st_size for _, status in files), oldest)
