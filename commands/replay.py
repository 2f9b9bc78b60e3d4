"""Loads again what has been mended: files of the failed folder, rejected records."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from msgspec import DecodeError, Meta, Raw, Struct, json
from psycopg2.extensions import connection as Connection

import watcher.scan
from commands.single import load_one, told
from config import Settings
from db import replay
from db.connection import Database, translated
from db.rejects import Stored
from db.replay import PAGE, Key, Open, ReplaySink
from db.sink import PostgresSink
from processing.batch import Outcome, Work
from processing.errors import DatabaseUnavailable, Misconfigured
from processing.held import Held
from processing.kinds import KINDS
from processing.names import printable
from processing.processor import Processor
from processing.settle import LeaveAlone, Settler, recover_claims

Tell = Callable[[str], None]

_KEYS = {kind.name: kind.key for kind in KINDS}

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
    settler = Settler(str(folder), str(folder), str(settings.archive or ""), settings.on_loaded)
    with closing(PostgresSink(database)) as sink, closing(settler):
        limits = settings.max_file_bytes, settings.max_reject_ratio
        processor = Processor(str(folder), sink, settler, *limits)
        loaded = [_load_file(processor, str(folder), name, tell) for name in names]
    tell(f"{len(loaded):,} files: {sum(loaded):,} loaded, {len(loaded) - sum(loaded):,} not")
    return 0 if all(loaded) else 1


def records(
    settings: Settings, database: Database, file: str | None, reason: Reason | None, tell: Tell
) -> int:
    """Rejected records that are open; the exit code: 0 if all of them were loaded."""
    with closing(database.connect(autocommit=True)) as connection:
        return _replay(settings, database, _pages(connection, file, reason), tell)


def edited_records(settings: Settings, database: Database, path: Path, tell: Tell) -> int:
    """Rejected records as the user has edited them; the exit code: 0 if all of them were loaded."""
    edits = read_edits(path)
    with closing(database.connect(autocommit=True)) as connection, translated():
        found = replay.edit(connection.cursor(), edits)
    missing = edits.keys() - {record.key for record in found}
    for file_id, position in sorted(missing):
        tell(f"record {position} of file {file_id}: not open, it is loaded or was never rejected")
    pages = (found[start : start + PAGE] for start in range(0, len(found), PAGE))
    code = _replay(settings, database, pages, tell)
    return 1 if missing else code


def read_edits(path: Path) -> dict[Key, str]:
    """JSON texts by record; raises Misconfigured, saying what is wrong."""
    try:
        edits = json.decode(path.read_text("utf-8"), type=list[Edit])
    except OSError as error:
        raise Misconfigured(f"can't read {path}: {error.strerror}") from None
    except (DecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path} is no array of file_id, position and original: {error}") from None
    texts = {(edit.file_id, edit.position): bytes(edit.original).decode() for edit in edits}
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


def _load_file(processor: Processor, folder: str, name: str, tell: Tell) -> bool:
    outcome = load_one(processor, folder, name)
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


def _pages(connection: Connection, file: str | None, reason: str | None) -> Iterator[list[Open]]:
    """Each is read when the one before has been replayed: those still open are not met again."""
    after = (-1, -1)
    while True:
        with translated(), connection.cursor() as cursor:
            page = replay.find_open(cursor, after, file=file, reason=reason)
        if not page:
            return
        yield page
        after = page[-1].key


def _replay(settings: Settings, database: Database, pages: Iterable[Sequence[Open]], tell: Tell) -> int:
    asked = refused = 0
    for page in pages:
        reasons = load_records(settings, database, {record.name: record for record in page})
        for name, why in reasons.items():
            tell(printable(f"{name}: {why.path}  {why.reason}: {why.detail}"))
        asked, refused = asked + len(page), refused + len(reasons)
    tell(f"{asked:,} records: {asked - refused:,} loaded, {refused:,} still rejected")
    return 1 if refused else 0


def load_records(settings: Settings, database: Database, named: Mapping[str, Open]) -> dict[str, Stored]:
    """Loads each as a file that must not have a reject; why some of them stay open."""
    with closing(ReplaySink(database, named)) as sink:
        processor = Processor(
            "",
            sink,
            LeaveAlone(),
            settings.max_file_bytes,
            max_reject_ratio=0,
            open_file=lambda _, name: nullcontext(Held(name, _document(named[name]))),
        )
        outcomes = processor.load([Work(name) for name in named])
        alone = [outcome.name for outcome in outcomes if outcome.state == "alone"]
        outcomes += [outcome for name in alone for outcome in processor.load([Work(name)])]
        for outcome in outcomes:
            if outcome.state == "contended":
                raise DatabaseUnavailable(f"another transaction is in the way: {outcome.reason}")
        return {outcome.name: sink.found[outcome.name] for outcome in outcomes if outcome.state == "failed"}


def _document(record: Open) -> bytes:
    return f'{{"{_KEYS[record.kind]}":[{record.text}]}}'.encode()
