"""Takes what loaded files brought out of the tables again, so that the same or corrected files may come."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from msgspec import Struct
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from commands.verify import stored_rows
from db import recall, reject_pages
from db.connection import translate_errors
from db.recall import Candidate, Days, Taken
from processing.counted import counted
from processing.errors import Misconfigured, TryAgain
from processing.printable import printable
from service.file_kinds import FILE_KINDS, FileKinds

#: Tries of a transaction that loses races with loads.
_TRIES = 5

Report = Callable[[str], None]


class Choice(Struct, frozen=True):
    """The files to recall: those of some names, of some entries, or loaded at a time or later."""

    names: Sequence[str] = ()
    file_ids: Sequence[int] = ()
    since: datetime | None = None

    def check(self) -> None:
        """Raises Misconfigured unless the files are chosen in exactly one way."""
        if sum(map(bool, (self.names, self.file_ids, self.since))) != 1:
            raise Misconfigured("choose the files by their names, by --file-id or by --since, one of these")


class Unchosen(Exception):
    """The choice does not lead to files that are loaded; the message says why."""


def preview(connection: Connection, choice: Choice, report: Report) -> int:
    """Reports what a recall would take out; returns 0 if there is something, else 1."""
    choice.check()
    with translate_errors(), connection, connection.cursor() as cursor:
        chosen = _choose(cursor, choice, report)
        if not chosen:
            return 1
        for found in chosen:
            replays = f" and of {counted(len(found.replays), 'replay')} of these" if found.replays else ""
            rejects = counted(found.rejects, "rejected record")
            report(f"{_named(found)}: {counted(found.rows, 'row')}{replays}, {rejects} would go")
        _report_later(cursor, chosen, report, "would be missing")
    report(f"{counted(len(chosen), 'file')} would be recalled, nothing was changed")
    return 0


def run(
    connection: Connection, choice: Choice, who: str, report: Report, known: FileKinds = FILE_KINDS
) -> int:
    """Recalls the files, a transaction each, the newest first; returns 0 if all were recalled, else 1."""
    choice.check()
    with translate_errors(), connection, connection.cursor() as cursor:
        chosen = _choose(cursor, choice, report)
        if not chosen:
            return 1
        days = recall.find_days(cursor, chosen, known.tables)
    recalled = [
        _report_taken(found, _recall(connection, found, days, who, known), report) for found in chosen
    ]
    with translate_errors(), connection, connection.cursor() as cursor:
        _report_later(cursor, chosen, report, "are missing now")
    report(f"{sum(recalled):,} of {counted(len(chosen), 'file')} recalled")
    return 0 if all(recalled) else 1


def _choose(cursor: Cursor, choice: Choice, report: Report) -> list[Candidate]:
    """Returns the chosen files; reports why there are none if one of them is not loaded."""
    try:
        return find(cursor, choice)
    except Unchosen as error:
        report(printable(str(error)))
        return []


def find(cursor: Cursor, choice: Choice) -> list[Candidate]:
    """Returns the chosen files, the newest first; raises Unchosen if one of them is not loaded."""
    if choice.since is not None:
        found = recall.find_since(cursor, choice.since)
        if not found:
            raise Unchosen(f"no file was loaded since {choice.since:%Y-%m-%d %H:%M:%S} UTC")
        return found
    chosen = {found.file_id: found for found in _find_each(cursor, choice)}
    return sorted(chosen.values(), key=lambda found: -found.file_id)


def _find_each(cursor: Cursor, choice: Choice) -> Iterator[Candidate]:
    for name in choice.names:
        yield _only_loaded(name, recall.find_named(cursor, name))
    for file_id in choice.file_ids:
        yield _only_loaded(f"file {file_id}", recall.find_id(cursor, file_id))


def _only_loaded(asked: str, found: Sequence[Candidate]) -> Candidate:
    if not found:
        raise Unchosen(f"{asked}: the ledger does not have it")
    loaded = [entry for entry in found if entry.state == "loaded"]
    if not loaded:
        raise Unchosen(f"{asked}: it is not loaded, but {found[0].state}")
    if len(loaded) > 1:
        ids = ", ".join(f"{entry.file_id} (loaded {entry.finished_at:%Y-%m-%d %H:%M:%S})" for entry in loaded)
        raise Unchosen(f"{asked}: several loaded files had this name; choose by --file-id: {ids}")
    return loaded[0]


def _recall(connection: Connection, found: Candidate, days: Days, who: str, known: FileKinds) -> Taken | None:
    """Recalls a file in one transaction, which it repeats if that loses a race."""
    for _ in range(_TRIES - 1):
        try:
            return _recall_once(connection, found, days, who, known)
        except TryAgain:
            continue
    return _recall_once(connection, found, days, who, known)


def _recall_once(
    connection: Connection, found: Candidate, days: Days, who: str, known: FileKinds
) -> Taken | None:
    with translate_errors(), connection, connection.cursor() as cursor:
        taken = recall.take_out(cursor, found.file_id, days, who, known.tables)
        if taken is not None and taken.rows:
            for key in _without_row(connection, cursor, found, known):
                recall.reopen(cursor, *key)
        return taken


def _without_row(
    connection: Connection, cursor: Cursor, found: Candidate, known: FileKinds
) -> list[tuple[int, int]]:
    """Returns the records that a replay resolved as duplicates of rows that are gone now."""
    keys = []
    for page in reject_pages.pages(recall.find_resolved_since(cursor, found)):
        for reject, rows in stored_rows(connection, reject_pages.read(cursor, page), known):
            if None in rows:
                keys.append(reject.key)
    return keys


def _report_taken(found: Candidate, taken: Taken | None, report: Report) -> bool:
    if taken is None:
        report(f"{_named(found)}: somebody else recalled it")
        return False
    parts = [counted(taken.rows, "row"), counted(taken.rejects, "rejected record")]
    if taken.replays:
        parts.append(f"{counted(taken.replays, 'replay')} of these")
    report(f"{_named(found)}: {', '.join(parts)} taken out")
    return True


def _report_later(cursor: Cursor, chosen: Sequence[Candidate], report: Report, verb: str) -> None:
    """Reports files that stay, and whose duplicates may have been of rows that go."""
    for kind in sorted({found.kind for found in chosen if found.kind}):
        since = min(found.started_at for found in chosen if found.kind == kind)
        later = recall.find_later(cursor, kind, since, [found.file_id for found in chosen])
        if later.files:
            report(
                f"{counted(later.files, 'file')} loaded since then had "
                f"{counted(later.duplicates, 'duplicate')}: "
                f"those of recalled rows {verb}; to have them back, recall these files, too, "
                f"and deliver them again: {', '.join(later.names)}"
            )


def _named(found: Candidate) -> str:
    return printable(f"file {found.file_id} ({found.name})")
