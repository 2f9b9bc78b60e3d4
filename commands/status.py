"""Shows whether a daemon runs, what waits in the watch folder, what was loaded and what failed."""

import errno
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import typer
from msgspec import Struct, json, to_builtins
from psycopg2.extensions import connection as Connection

import environment
from commands import output, publish_status, stream_status
from config import Settings
from db import queries
from db.claims import daemons
from db.patience import ask
from db.queries import FileEntry, Totals
from db.stream import read_stored
from processing.counted import counted, format_counts
from processing.printable import printable
from processing.sink import Counts
from service.drop_folder import LONG_SECONDS, Backlog, Looker, Waiting
from service.kept_client import KeptClient
from service.presence import Watched, watched
from service.published import Published
from service.topic_state import TopicLooker, TopicState
from sources.policy import BucketPlace

#: The answer takes milliseconds, however many files were loaded.
_SECONDS = 60.0

_SHOWN = 5

#: Failed files that are named in a command to type.
_NAMED = 3


class Step(Struct, frozen=True):
    """A command to type, and what it is for."""

    command: str
    why: str


class Status(Struct, frozen=True):
    """The facts that the status command shows; without totals, trouble says why there are none."""

    at: datetime
    daemon: Watched
    backlog: Backlog
    totals: Totals | None
    last_files: list[FileEntry]
    last_failures: list[FileEntry]
    needs: list[str]
    next_steps: list[Step]
    trouble: str = ""
    topics: TopicState | None = None
    published: Published | None = None


def gather(
    settings: Settings,
    client: KeptClient,
    connection: Connection | None,
    published: Published | None = None,
    trouble: str = "",
) -> Status:
    """Returns the facts; without a connection, for which trouble is the reason, only those beside it."""
    backlog, daemon = Looker(settings, client).look(_SHOWN), Watched(None)
    if settings.bucket is not None:
        if connection:
            starts = ask(connection, lambda: daemons(connection, str(settings.bucket)), seconds=_SECONDS)
            daemon = Watched.of_bucket(starts)
    elif not backlog.error and settings.watches:
        daemon = watched(str(settings.folder))
    found = _ledger_of(connection) if connection else _Found(None, [], [], [])
    topics = _topics_of(settings, connection) if connection else None
    needs = _needs(daemon, backlog, found.totals)
    if trouble:
        needs.append("the database can't be asked")
    if topics is not None:
        needs += stream_status.needs(settings, topics)
    if published is not None:
        needs += publish_status.needs(published)
    return Status(
        datetime.now(UTC),
        daemon,
        backlog,
        found.totals,
        found.files,
        found.failures,
        needs,
        list(_next_steps(settings, daemon, backlog, found, topics, published)),
        trouble,
        topics,
        published,
    )


def _topics_of(settings: Settings, connection: Connection) -> TopicState | None:
    stored = ask(connection, lambda: read_stored(connection, _SHOWN), seconds=_SECONDS)
    return TopicLooker(settings).look(stored)


class _Found(Struct, frozen=True):
    """The answers of the database; open_names: the last files that failed and that nobody dealt with."""

    totals: Totals | None
    files: list[FileEntry]
    failures: list[FileEntry]
    open_names: list[str]


def _ledger_of(connection: Connection) -> _Found:
    def read() -> _Found:
        return _Found(
            queries.totals(connection),
            queries.last_files(connection, _SHOWN),
            queries.last_files(connection, _SHOWN, "failed"),
            queries.open_failures(connection, _NAMED),
        )

    return ask(connection, read, seconds=_SECONDS)


def _next_steps(
    settings: Settings,
    daemon: Watched,
    backlog: Backlog,
    found: _Found,
    topics: TopicState | None,
    published: Published | None,
) -> Iterator[Step]:
    """Returns the commands that deal with what was found."""
    if daemon.is_running is False or backlog.error == os.strerror(errno.ENOENT):
        start = Step("python main.py", "starts the daemon")
        yield Step("python main.py publish", "starts the publisher") if published is not None else start
    yield from _of_ledger(settings, found)
    if topics is not None:
        yield from (Step(*step) for step in stream_status.steps(settings, topics))
    if published is not None:
        yield from (Step(*step) for step in publish_status.steps(settings, published))


def _of_ledger(settings: Settings, found: _Found) -> Iterator[Step]:
    if found.open_names:
        names = " ".join(map(shlex.quote, found.open_names))
        paths = " ".join(shlex.quote(printable(path)) for path in _failed_paths(settings, found.open_names))
        yield Step(f"python main.py check {paths}", "shows what is wrong; fix it there")
        yield Step(f"python main.py replay failed {names}", "loads the fixed files")
        yield Step(f"python main.py replay failed --dismiss {names}", "or notes that you know of it")
    if found.totals and found.totals.open_rejects:
        query = "select * from open_rejects"
        yield Step(f'python main.py sql "{query} limit 20"', "shows what is wrong with the records")
        yield Step(f'python main.py sql "{query}" --json > rejects.json', "writes them down; fix them there")
        yield Step("python main.py replay rejected --edited rejects.json", "loads the fixed records")


def _failed_paths(settings: Settings, names: Sequence[str]) -> list[str]:
    """Returns the paths of failed files; of a bucket that of all, since their names there have digests."""
    if settings.bucket is not None:
        return [str(BucketPlace(settings.bucket.bucket, settings.bucket_ends.failed))]
    return [_shown(settings.failed / name) for name in names]


def _shown(path: Path) -> str:
    with suppress(ValueError, OSError):  # elsewhere, or the current directory is gone
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _needs(daemon: Watched, backlog: Backlog, totals: Totals | None) -> list[str]:
    """Returns what needs a person."""
    needs = []
    if backlog.error:
        needs.append("the watch folder can't be listed")
    if daemon.is_running is False:
        needs.append("no daemon watches the folder")
    if backlog.oldest_seconds is not None and backlog.oldest_seconds > LONG_SECONDS:
        needs.append("a file has waited for more than an hour")
    if totals is not None and totals.open_failures:
        needs.append(f"{counted(totals.open_failures, 'file')} failed: fix and replay, or dismiss")
    return needs


def show(status: Status, as_json: bool) -> None:
    """Prints the status on standard output."""
    if as_json:
        output.for_programs()
        sys.stdout.write(json.format(json.encode(to_builtins(status)), indent=2).decode() + "\n")
        return
    _print_verdict(status.needs)
    for name, value in _facts(status):
        sys.stdout.write(f"{name:<10} {printable(value)}\n")
    files = [_formatted(file) for file in status.last_files]
    failures = [_formatted(file) for file in status.last_failures if file not in status.last_files]
    waiting = [_formatted_waiting(file) for file in status.backlog.oldest]
    steps = [f"{step.command}  # {step.why}" for step in status.next_steps]
    sections = ("waiting", waiting), ("last files, UTC", files), ("earlier failures, UTC", failures)
    of_topics = stream_status.sections(status.topics) if status.topics else ()
    of_published = publish_status.sections(status.published) if status.published else ()
    of_kafka = *of_topics, *of_published
    for title, lines in (*sections, *of_kafka, ("needs a person", status.needs), ("what to do next", steps)):
        if lines:
            sys.stdout.write("\n".join(["", title, *map(printable, lines), ""]))


def _print_verdict(needs: Sequence[str]) -> None:
    """Prints the first line, by which one sees whether the others have to be read."""
    verdict = f"{counted(len(needs), 'thing')} to look at" if needs else "all is well"
    coloured = typer.style(verdict, fg="red" if needs else "green", bold=bool(needs))
    typer.echo(f"{'status':<10} {coloured}", color=False if environment.forbids_colour() else None)


def _facts(status: Status) -> list[tuple[str, str]]:
    backlog, totals = status.backlog, status.totals
    oldest = "" if backlog.oldest_seconds is None else f", the oldest for {backlog.oldest_seconds:.0f} s"
    size = f"{counted(backlog.files, 'file')}, {counted(backlog.bytes, 'byte')}"
    size = f"at least {size}" if backlog.has_more else size
    waiting = f"{size}{oldest} in {backlog.folder}"
    if backlog.error:
        waiting = f"not known: can't list {backlog.folder}: {backlog.error}"
    is_watched = status.daemon.is_running is not None or backlog.files or backlog.error
    facts = [("daemon", _formatted_daemon(status.daemon)), ("waiting", waiting)]
    if status.topics is not None and not is_watched:
        facts.clear()  # these settings are of a consumer, which has no folder
    if backlog.not_looked_at:
        first = backlog.not_looked_at[0]
        others = counted(len(backlog.not_looked_at), "other file or folder", "other files and folders")
        facts.append(("ignored", f"{others}, such as {first}"))
    if status.published is not None:
        facts += publish_status.facts(status.published)
    if totals is None:
        return [*facts, ("database", status.trouble)] if status.trouble else facts
    failed = counted(totals.failed_files, "file")
    return [
        *facts,
        ("loaded", counted(totals.loaded_files, "file") + _recalled(totals.recalled_files)),
        ("failed", f"{failed}, {totals.open_failures:,} of them to fix or to dismiss"),
        ("records", _formatted_counts(totals)),
        ("to fix", counted(totals.open_rejects, "rejected record")),
        *(stream_status.facts(status.topics) if status.topics else ()),
        ("latest", _time(totals.last_finished_at) if totals.last_finished_at else "nothing yet"),
    ]


def _recalled(count: int) -> str:
    return f", {count:,} more recalled" if count else ""


def _formatted_daemon(daemon: Watched) -> str:
    if daemon.is_running is None:
        return "not known"
    if not daemon.is_running:
        return "not running"
    since = f" since {_time(daemon.since)}" if daemon.since else ""
    processes = ", ".join(map(str, daemon.processes))
    return f"running{since}" + (f" (process {processes})" if processes else "")


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _formatted_waiting(file: Waiting) -> str:
    reason = f": {file.reason}" if file.reason else ""
    return f"{file.seconds:,.0f} s  {file.name}  {counted(file.bytes, 'byte')}{reason}"


def _formatted(file: FileEntry) -> str:
    """Formats the outcome of a file as one line."""
    counts = f"{_formatted_counts(file)} ({file.kind})" if file.state == "loaded" else file.error or ""
    return f"{file.finished_at:%Y-%m-%d %H:%M:%S}  {file.state:<6}  {file.name}  {counts}".rstrip()


def _formatted_counts(file: FileEntry | Totals) -> str:
    return format_counts(Counts(file.rows_read, file.rows_inserted, file.rows_duplicate, file.rows_rejected))
