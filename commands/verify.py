"""Compares ledger, tables and folders, and reports each difference."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from psycopg2.extensions import connection as Connection

from config import Settings
from db import audit, reject_pages
from db.connection import RowRefused, savepoint, translate_errors
from db.failures import failures as find_failures
from db.reject_pages import Reject
from db.row_audit import Progress, Scope, no_progress, scope_since, wrong_rows
from db.stored_rows import StoredRow
from processing.counted import counted, noun
from processing.printable import printable
from service.file_kinds import FILE_KINDS, FileKinds
from service.kept_client import KeptClient
from service.marker_store import marker_of_topics
from service.rejects import rows_of
from service.shelf import Found, Shelf, failed_shelf, look, waiting_shelf


def run(
    settings: Settings,
    connection: Connection,
    report: Callable[[str], None],
    known: FileKinds = FILE_KINDS,
    since: datetime | None = None,
    progress: Progress = no_progress,
) -> int:
    """Reports each difference; returns 0 if there is none, else 1.

    With since only files that were finished since then are compared with their rows.
    """
    flaws, client = 0, KeptClient(settings.s3_endpoint_url)
    found = _flaws(settings, client, connection, known, since, progress)
    if marker := marker_of_topics(settings, client):
        report(printable(f"{settings.watch_folder} is not compared: its files go into {marker.database}"))
        found = _flaws_of_database(connection, known, since, progress)
    for flaw in found:
        report(printable(flaw))
        flaws += 1
    flawed = f"{counted(flaws, 'thing')} {noun(flaws, 'does', 'do')} not add up"
    report(flawed if flaws else "ledger, tables and folders add up")
    return 1 if flaws else 0


def _flaws(
    settings: Settings,
    client: KeptClient,
    connection: Connection,
    known: FileKinds,
    since: datetime | None,
    progress: Progress,
) -> Iterator[str]:
    """Yields each difference."""
    # The folders are read before the ledger: a file that leaves them meanwhile has its entry by then.
    shelves = waiting_shelf(settings, client), failed_shelf(settings, client)
    waiting, failed = (_files(shelf, settings.max_file_bytes, progress) for shelf in shelves)
    yield from _flaws_of_database(connection, known, since, progress)
    with translate_errors(), connection.cursor() as cursor:  # of the same snapshot
        digests = [file.sha256 for file in (*waiting, *failed) if file.sha256]
        states, failures = audit.states(cursor, digests), find_failures(cursor)
    yield from _still_there(shelves[0], waiting, states)
    yield from _failed_unknown(failed, states, failures)
    yield from _failed_gone(shelves[1], [*waiting, *failed], failures)


def _flaws_of_database(
    connection: Connection, known: FileKinds, since: datetime | None, progress: Progress
) -> Iterator[str]:
    audit.begin(connection)
    with translate_errors(), connection.cursor() as cursor:
        yield from flaws_of_tables(connection, known, since, scope_since(cursor, since), progress)


def flaws_of_tables(
    connection: Connection, known: FileKinds, since: datetime | None, scope: Scope, progress: Progress
) -> Iterator[str]:
    yield from wrong_rows(connection, known.tables, scope, progress)
    with connection.cursor() as cursor:
        progress("rejected records", 0, 1)
        yield from audit.wrong_rejects(cursor, scope)
        progress("latest status", 0, 1)
        yield from audit.wrong_latest(cursor, known.tables, scope)
        if scope.is_all:
            progress("counts by hour", 0, 1)
            yield from audit.wrong_hours(cursor, known.tables)
            progress("totals", 0, 1)
            yield from audit.wrong_totals(cursor)
    progress("resolved records", 0, 1)
    yield from resolved_wrongly(connection, known, since)


def resolved_wrongly(
    connection: Connection, known: FileKinds = FILE_KINDS, since: datetime | None = None
) -> Iterator[str]:
    """Yields the records, resolved since then or ever, that lack one of their rows."""
    after = (-1, -1)
    with translate_errors(), connection.cursor() as cursor:
        while found := reject_pages.find(cursor, after, is_open=False, since=since):
            for keys in reject_pages.pages(found):
                for reject, rows in stored_rows(connection, reject_pages.read(cursor, keys), known):
                    if flaw := _flaw(rows):
                        yield f"{reject.name}: resolved, but {flaw}"
            after = found[-1].key


def stored_rows(
    connection: Connection, rejects: Sequence[Reject], known: FileKinds
) -> Iterator[tuple[Reject, list[StoredRow | None]]]:
    """Yields each record with its stored rows, and none for a record that no column can hold."""
    # One value that no column can hold fails the whole query: halving finds its record.
    try:
        with savepoint(connection) as cursor:
            answers = list(rows_of(cursor, rejects, known))
    except RowRefused:
        if len(rejects) == 1:
            yield rejects[0], []
            return
        middle = len(rejects) // 2
        yield from stored_rows(connection, rejects[:middle], known)
        yield from stored_rows(connection, rejects[middle:], known)
        return
    yield from answers


def _flaw(rows: list[StoredRow | None]) -> str:
    if not rows:
        return "it can't be loaded"
    if None in rows:
        return "its row is missing: was it deleted, or a partition dropped?"
    if not all(row.is_equal for row in rows if row):
        return "another value is stored under its key"
    return ""


def _still_there(shelf: Shelf, waiting: list[Found], states: dict[bytes, str]) -> Iterator[str]:
    for file in waiting:
        if file.sha256 and states.get(file.sha256) == "loaded" and shelf.has(file.name):
            yield f"{file.name}: still in the watch folder, but loaded already"


Failure = tuple[str, int, bytes | None, bool]


def _failed_unknown(
    failed: list[Found], states: dict[bytes, str], failures: Sequence[Failure]
) -> Iterator[str]:
    unread = {(name, size) for name, size, digest, _ in failures if digest is None}
    for file in failed:
        state = states.get(file.sha256) if file.sha256 else None
        if state == "loaded":
            yield f"{file.name}: in the failed folder, but loaded already"
        elif state != "failed" and (printable(file.name), file.size) not in unread:
            yield f"{file.name}: in the failed folder, but the ledger does not have it as failed"


def _failed_gone(shelf: Shelf, files: list[Found], failures: Sequence[Failure]) -> Iterator[str]:
    """Yields failures whose file is gone, except those that a person has acknowledged."""
    # Compared by name, too: the file may have been edited for a replay, or be unreadable now.
    digests = {file.sha256 for file in files if file.sha256}
    for name, _, digest, is_dismissed in failures:
        if not is_dismissed and digest not in digests and not shelf.has(name):
            yield f"{name}: failed, but it is not in the failed folder: was it removed?"


def _files(shelf: Shelf, max_bytes: int, progress: Progress) -> list[Found]:
    """The files that nobody is writing or loading."""
    names = shelf.names()
    files = []
    for number, name in enumerate(names):
        progress(f"files in {printable(str(shelf))}", number, len(names))
        if found := look(shelf, name, max_bytes):
            files.append(found)
    return files
