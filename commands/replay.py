"""Loads again what has been mended: files of the failed folder, rejected records."""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from msgspec import DecodeError, Meta, Raw, Struct, json
from psycopg2.extensions import connection as Connection

import watcher.scan
from config import Settings
from db import reject_pages, replay
from db.connection import Database, translate_errors
from db.reject_pages import PAGE_BYTES, Key, Reject, Sized
from db.rejects import Stored
from db.replay import ReplaySink
from db.sink import PostgresSink
from processing.batch import FileTask, Outcome
from processing.errors import DatabaseUnavailable, Misconfigured
from processing.loader import Loader
from processing.printable import printable
from service.load_one import load_one, told
from service.rejects import document, rows_of
from sources.claims import recover_claims
from sources.disposal import FileDisposer, NoDisposal
from sources.memory import MemoryFile

Tell = Callable[[str], None]

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Reason(StrEnum):
    """Why a record was rejected."""

    INVALID = "invalid"
    CONFLICT = "conflict"
    REFUSED = "refused"


class Edit(Struct, frozen=True):
    """What is to be loaded in place of a rejected record's original."""

    file_id: _Id
    position: _Id
    original: Raw


def files(settings: Settings, database: Database, paths: Sequence[Path], tell: Tell) -> int:
    """Files of the failed folder, all if none is named; the exit code: 0 if all of them were loaded."""
    folder = settings.failed
    names = [_name_in(folder, path) for path in paths] or _all_names(folder)
    archive = str(settings.archive or "")
    disposer = FileDisposer(str(folder), str(folder), archive, settings.on_loaded, settings.quiet_seconds)
    with closing(PostgresSink(database)) as sink, closing(disposer):
        limits = settings.max_file_bytes, settings.max_reject_ratio
        loader = Loader(str(folder), sink, disposer, *limits)
        loaded = [_load_file(loader, str(folder), name, tell) for name in names]
    tell(f"{len(loaded):,} files: {sum(loaded):,} loaded, {len(loaded) - sum(loaded):,} not")
    return 0 if all(loaded) else 1


def records(
    settings: Settings, database: Database, file: str | None, reason: Reason | None, tell: Tell
) -> int:
    """Rejected records that are open; the exit code: 0 if all of them were loaded."""
    with closing(database.connect(autocommit=True)) as connection:
        return _replay(settings, database, connection, _open_pages(connection, file, reason), tell)


def edited_records(settings: Settings, database: Database, path: Path, tell: Tell) -> int:
    """Rejected records as the user has edited them; the exit code: 0 if all of them were loaded."""
    edits = read_edits(path)
    with closing(database.connect(autocommit=True)) as connection:
        found = _edit(connection, edits)
        missing = edits.keys() - {record.key for record in found}
        for file_id, position in sorted(missing):
            tell(f"record {position} of file {file_id}: not open, it is loaded or was never rejected")
        code = _replay(settings, database, connection, _read(connection, found), tell)
    return 1 if missing else code


def read_edits(path: Path) -> dict[Key, bytes]:
    """JSON texts by record, to the letter; raises Misconfigured, saying what is wrong."""
    try:
        edits = json.decode(path.read_text("utf-8"), type=list[Edit])
    except OSError as error:
        raise Misconfigured(f"can't read {path}: {error.strerror}") from None
    except (DecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path} is no array of file_id, position and original: {error}") from None
    texts = {(edit.file_id, edit.position): bytes(edit.original) for edit in edits}
    if len(texts) < len(edits):
        raise Misconfigured(f"{path} has one record twice")
    return texts


def _all_names(folder: Path) -> list[str]:
    if not folder.exists():
        return []
    recover_claims(str(folder))
    return watcher.scan.waiting(str(folder))


def _name_in(folder: Path, path: Path) -> str:
    """A bare name, or a path that leads there."""
    if path.parent not in (Path(), folder) and path.parent.resolve() != folder:
        raise Misconfigured(f"{path} is not in {folder}")
    return path.name


def _load_file(loader: Loader, folder: str, name: str, tell: Tell) -> bool:
    outcome = load_one(loader, folder, name)
    tell(f"{printable(name)}: {_file_told(outcome)}")
    return outcome.state in ("loaded", "duplicate")


def _file_told(outcome: Outcome) -> str:
    stays = f", but it is still there: {outcome.reason}" if outcome.reason else ""
    match outcome.state:
        case "loaded":
            return f"loaded, {told(outcome.counts)} ({outcome.kind}){stays}"
        case "duplicate":
            return f"loaded already{stays}"
        case "failed":
            return f"failed again: {outcome.reason}"
        case "gone":
            return "no such file"
        case _:
            return f"not loaded now: {outcome.reason}"


def _edit(connection: Connection, edits: Mapping[Key, bytes]) -> list[Sized]:
    """Gives records their new texts, page by page; gives back those that are open."""
    sized = [Sized(*key, len(text)) for key, text in edits.items()]
    found: list[Sized] = []
    with translate_errors(), connection.cursor() as cursor:
        for keys in reject_pages.pages(sized):
            found += replay.edit(cursor, {key: edits[key].decode() for key in keys})
    return found


def _open_pages(connection: Connection, file: str | None, reason: str | None) -> Iterator[list[Reject]]:
    """Each is read when the one before has been replayed: those still open are not met again."""
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


def _replay(
    settings: Settings,
    database: Database,
    connection: Connection,
    pages: Iterable[Sequence[Reject]],
    tell: Tell,
) -> int:
    asked = refused = garbage = 0
    for page in pages:
        outcome = load_records(settings, database, {record.name: record for record in page})
        for name, why in outcome.reasons.items():
            tell(printable(f"{name}: {why.path}  {why.reason}: {why.detail}"))
        for line in _duplicates(connection, outcome.duplicates):
            tell(printable(line))
        asked, refused = asked + len(page), refused + len(outcome.reasons)
        # What failed refers to its error, and that to all that was held: the collector, which counts objects
        # and not bytes, would come after hundreds of megabytes.
        garbage += sum(len(record.text) for record in page)
        if garbage >= PAGE_BYTES:
            gc.collect()
            garbage = 0
    tell(f"{asked:,} records: {asked - refused:,} loaded, {refused:,} still rejected")
    return 1 if refused else 0


def _duplicates(connection: Connection, rejects: Sequence[Reject]) -> Iterator[str]:
    """Names the rows that were there already."""
    with translate_errors(), connection.cursor() as cursor:
        for reject, rows in rows_of(cursor, rejects):
            others = {row.file_id: row.file for row in rows if row and row.file != reject.name}
            for file_id, file in sorted(others.items()):
                yield f"{reject.name}: a duplicate of what file {file_id} ({file}) brought"


class Replayed(Struct, frozen=True):
    """What became of some records: why those stay open that do, and of which rows were there already."""

    reasons: dict[str, Stored]
    duplicates: list[Reject]


def load_records(settings: Settings, database: Database, named: Mapping[str, Reject]) -> Replayed:
    """Loads each as a file that must not have a reject."""
    with closing(ReplaySink(database, named)) as sink:
        loader = Loader(
            "",
            sink,
            NoDisposal(),
            settings.max_file_bytes,
            max_reject_ratio=0,
            open_file=lambda _, name: nullcontext(MemoryFile(name, document(named[name]))),
        )
        outcomes = loader.load([FileTask(name) for name in named])
        alone = [outcome.name for outcome in outcomes if outcome.state == "retry_alone"]
        outcomes += [outcome for name in alone for outcome in loader.load([FileTask(name)])]
    for outcome in outcomes:
        if outcome.state in ("waiting", "contended"):
            raise DatabaseUnavailable(f"another transaction is in the way: {outcome.reason}")
    failed = [outcome.name for outcome in outcomes if outcome.state == "failed"]
    duplicates = [named[outcome.name] for outcome in outcomes if outcome.counts.duplicate]
    return Replayed({name: sink.found[name] for name in failed}, duplicates)
