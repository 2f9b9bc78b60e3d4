"""Loads fixed files of the failed folder, and rejected records, again."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

from msgspec import DecodeError, Meta, Raw, Struct, json
from psycopg2.extensions import connection as Connection

from commands.person import who
from config import Settings
from db import failures, reject_pages, replay
from db.connection import Database, translate_errors
from db.reject_pages import Key, Reject, Sized
from db.rejects import Stored
from db.replay import ReplaySink
from db.row_audit import Progress, no_progress
from db.sink import PostgresSink
from db.stored_rows import DROPPED
from processing.batch import FileTask, Outcome
from processing.counted import counted, format_counts
from processing.errors import DatabaseUnavailable, Misconfigured
from processing.loader import Loader
from processing.printable import printable
from processing.records import Reason
from service.file_kinds import FILE_KINDS, FileKinds
from service.kept_client import KeptClient
from service.load_one import load_one
from service.rejects import document, rows_of
from service.shelf import Shelf, failed_shelf, look
from sources.memory import MemorySource

Report = Callable[[str], None]

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Edit(Struct, frozen=True):
    """The text to load in place of a rejected record's original."""

    file_id: _Id
    position: _Id
    original: Raw


def files(
    settings: Settings,
    database: Database,
    paths: Sequence[str],
    report: Report,
    known: FileKinds = FILE_KINDS,
    progress: Progress = no_progress,
) -> int:
    """Loads files of the failed folder, all if none is named; returns 0 if all were loaded, else 1."""
    shelf = failed_shelf(settings, KeptClient(settings.s3_endpoint_url))
    names = [name for path in paths for name in shelf.chosen(path)] or _all_names(shelf)
    source = shelf.source()
    with (
        closing(
            PostgresSink(database, tables=known.tables, max_future_hours=settings.max_future_hours)
        ) as sink,
        closing(source),
    ):
        limits = settings.max_file_bytes, settings.max_reject_ratio
        loader = Loader(source, sink, *limits, known.kinds)
        loaded = []
        for number, name in enumerate(names):
            progress("files", number, len(names))
            loaded.append(_load_file(loader, shelf.task(name), report))
    report(f"{counted(len(loaded), 'file')}: {sum(loaded):,} loaded, {len(loaded) - sum(loaded):,} not")
    return 0 if all(loaded) else 1


def dismiss(settings: Settings, database: Database, paths: Sequence[str], report: Report) -> int:
    """Acknowledges the failures of files, which stay where they are; returns 0 if there were any of each."""
    if not paths:
        raise Misconfigured("name the files that --dismiss is to acknowledge")
    shelf = failed_shelf(settings, KeptClient(settings.s3_endpoint_url))
    names = [name for path in paths for name in shelf.chosen(path)]
    files = [look(shelf, name, settings.max_file_bytes) for name in names]
    dismissed = []
    with closing(database.connect(autocommit=True)) as connection:
        for name, file in zip(names, files, strict=True):
            known_as, digest = printable(shelf.known_as(name)), file.sha256 if file else None
            with translate_errors(), connection.cursor() as cursor:
                count = failures.dismiss(cursor, known_as, digest, who())
            dismissed.append(count > 0)
            report(f"{printable(name)}: {'dismissed' if count else 'the ledger has no open failure of it'}")
    return 0 if all(dismissed) else 1


def records(
    settings: Settings,
    database: Database,
    file: str | None,
    reason: Reason | None,
    report: Report,
    known: FileKinds = FILE_KINDS,
    progress: Progress = no_progress,
) -> int:
    """Loads the open rejected records again; returns 0 if all of them were loaded, else 1."""
    name = None if file is None else printable(file)  # as the ledger has it
    with closing(database.connect(autocommit=True)) as connection:
        with translate_errors(), connection.cursor() as cursor:
            count = reject_pages.count_open(cursor, name, reason)
        pages = _watched(_open_pages(connection, name, reason), count, progress)
        return _replay(settings, database, connection, pages, report, known)


def edited_records(
    settings: Settings,
    database: Database,
    path: Path,
    report: Report,
    known: FileKinds = FILE_KINDS,
    progress: Progress = no_progress,
) -> int:
    """Loads rejected records as the user has edited them; returns 0 if all of them were loaded, else 1."""
    edits = read_edits(path)
    with closing(database.connect(autocommit=True)) as connection:
        found = _edit(connection, edits)
        missing = edits.keys() - {record.key for record in found}
        for file_id, position in sorted(missing):
            report(
                f"record {position} of file {file_id}: not open: it is loaded already or was never rejected"
            )
        pages = _watched(_read(connection, found), len(found), progress)
        code = _replay(settings, database, connection, pages, report, known)
    return 1 if missing else code


def read_edits(path: Path) -> dict[Key, bytes]:
    """Reads the unchanged JSON texts by record; raises Misconfigured with what is wrong."""
    try:
        edits = json.decode(path.read_text("utf-8"), type=list[Edit])
    except OSError as error:
        raise Misconfigured(f"can't read {path}: {error.strerror}") from None
    except (DecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"{path} should be an array of objects with file_id, position and original: {error}"
        ) from None
    texts = {(edit.file_id, edit.position): bytes(edit.original) for edit in edits}
    if len(texts) < len(edits):
        raise Misconfigured(f"{path} names a record twice")
    return texts


def _all_names(shelf: Shelf) -> Sequence[str]:
    shelf.put_back()
    return shelf.names()


def _load_file(loader: Loader, task: FileTask, report: Report) -> bool:
    outcome = load_one(loader, task)
    report(f"{printable(task.name)}: {_result(outcome)}")
    return outcome.state in ("loaded", "duplicate")


def _result(outcome: Outcome) -> str:
    stays = f", but it is still there: {outcome.reason}" if outcome.reason else ""
    match outcome.state:
        case "loaded":
            return f"loaded, {format_counts(outcome.counts)} ({outcome.kind}){stays}"
        case "duplicate":
            return f"loaded already{stays}"
        case "failed":
            return f"failed again: {outcome.reason}"
        case "gone":
            return "no such file"
        case _:
            return f"not loaded now: {outcome.reason}"


def _edit(connection: Connection, edits: Mapping[Key, bytes]) -> list[Sized]:
    """Stores the edited texts page by page; returns the records that are open."""
    sized = [Sized(*key, len(text)) for key, text in edits.items()]
    found: list[Sized] = []
    with translate_errors(), connection.cursor() as cursor:
        for keys in reject_pages.pages(sized):
            found += replay.edit(cursor, {key: edits[key].decode() for key in keys})
    return found


def _open_pages(connection: Connection, file: str | None, reason: str | None) -> Iterator[list[Reject]]:
    """Yields pages of open records; a record that stays open is not yielded again."""
    # Each page is read after the one before has been replayed, and begins after its last key.
    after = (-1, -1)
    while True:
        with translate_errors(), connection.cursor() as cursor:
            found = reject_pages.find(cursor, after, is_open=True, file=file, reason=reason)
        if not found:
            return
        yield from _read(connection, found)
        after = found[-1].key


def _read(connection: Connection, found: Iterable[Sized]) -> Iterator[list[Reject]]:
    for keys in reject_pages.pages(found):
        with translate_errors(), connection.cursor() as cursor:
            page = reject_pages.read(cursor, keys)
        yield page


def _watched(pages: Iterable[list[Reject]], count: int, progress: Progress) -> Iterator[list[Reject]]:
    done = 0
    for page in pages:
        progress("records", done, max(count, done + len(page)))
        yield page
        done += len(page)


def _replay(
    settings: Settings,
    database: Database,
    connection: Connection,
    pages: Iterable[Sequence[Reject]],
    report: Report,
    known: FileKinds,
) -> int:
    asked = refused = 0
    for page in pages:
        outcome = load_records(settings, database, {record.name: record for record in page}, known)
        for name, why in outcome.reasons.items():
            report(printable(f"{name}: {why.path}  {why.reason}: {why.detail}"))
        for line in _duplicates(connection, outcome.duplicates, known):
            report(printable(line))
        asked, refused = asked + len(page), refused + len(outcome.reasons)
    report(f"{counted(asked, 'record')}: {asked - refused:,} loaded, {refused:,} still rejected")
    return 1 if refused else 0


def _duplicates(connection: Connection, rejects: Sequence[Reject], known: FileKinds) -> Iterator[str]:
    """Yields a line for each file that brought rows which a replayed record repeats."""
    with translate_errors(), connection.cursor() as cursor:
        for reject, rows in rows_of(cursor, rejects, known):
            others = {
                row.file_id: row.file
                for row in rows
                if row and row is not DROPPED and row.file != reject.name
            }
            for file_id, file in sorted(others.items()):
                yield f"{reject.name}: a duplicate of a row of file {file_id} ({file})"


class Replayed(Struct, frozen=True):
    """The outcome of a page: why records stay open, and which records have rows that were stored already."""

    reasons: dict[str, Stored]
    duplicates: list[Reject]


def load_records(
    settings: Settings, database: Database, named: Mapping[str, Reject], known: FileKinds = FILE_KINDS
) -> Replayed:
    """Loads each record as a file that must not have a reject."""
    source = MemorySource(lambda name: document(named[name], known.kinds))
    with closing(ReplaySink(database, named, known.tables, settings.max_future_hours)) as sink:
        loader = Loader(source, sink, settings.max_file_bytes, max_reject_ratio=0, kinds=known.kinds)
        outcomes = loader.load([FileTask(name) for name in named])
        alone = [outcome.name for outcome in outcomes if outcome.state == "retry_alone"]
        outcomes += [outcome for name in alone for outcome in loader.load([FileTask(name)])]
    for outcome in outcomes:
        if outcome.state in ("waiting", "contended"):
            raise DatabaseUnavailable(f"another transaction holds a lock: {outcome.reason}")
    failed = [outcome.name for outcome in outcomes if outcome.state == "failed"]
    duplicates = [named[outcome.name] for outcome in outcomes if outcome.counts.duplicate]
    return Replayed({name: sink.found[name] for name in failed}, duplicates)
