"""The page of the present: what waits, what is loaded and how fast, what failed and what to do about it."""

import errno
import os
import shlex
from collections.abc import Sequence

from db.present import MOST_COUNTED, Failure, OpenReject
from db.queries import FileEntry
from monitor.dashboard import markup, numbers, topics_part
from monitor.dashboard.history import STEP, Step
from monitor.dashboard.live import Ledger, Present
from monitor.dashboard.markup import Column, Notice, Problem, Tile, Tone
from processing.counted import counted, noun
from service.drop_folder import LONG_SECONDS

_START = "python main.py"
_PUBLISH = "python main.py publish"


def notices(present: Present) -> str:
    """Says what needs a person; or that nothing does."""
    topics = topics_part.notices(present.topics) if present.topics else []
    published = topics_part.about_published(present.published) if present.published else []
    found = [*_about_daemon(present), *_about_ledger(present), *topics, *published]
    return markup.notices(*(found or [_all_is_well(present)]))


def _about_daemon(present: Present) -> list[Notice]:
    folder, daemon = present.folder, present.daemon
    found = []
    if folder.error == os.strerror(errno.ENOENT):
        found.append(
            Notice(f"There is no watch folder {folder.folder} yet. The daemon makes it:", "warn", _START)
        )
    elif folder.error:
        found.append(Notice(f"The watch folder {folder.folder} can't be listed: {folder.error}.", "bad"))
    elif daemon.is_running is False:
        start = _START if present.published is None else _PUBLISH
        found.append(Notice(f"No daemon watches {folder.folder}. Start it:", "warn", start))
    if folder.oldest_seconds is not None and folder.oldest_seconds > LONG_SECONDS:
        found.append(Notice("A file has waited for more than an hour.", "warn"))
    if present.trouble:
        text = f"No answer of the database: {present.trouble}. This page looks for it again and again."
        found.append(Notice(text, "bad"))
    return found


def _about_ledger(present: Present) -> list[Notice]:
    if present.ledger is None:
        return []
    found = []
    if present.ledger.failures:
        found.append(Notice("Failed files wait for a person: see below what to do.", "warn"))
    if strange := {name: n for name, n in present.ledger.rows_without_a_day.items() if n}:
        text = ", ".join(f"{_at_most(n)} of {name}" for name, n in strange.items())
        found.append(Notice(f'Rows in a partition "other", not in that of their day: {text}.'))
    return found


def _at_most(number: int) -> str:
    return f"more than {MOST_COUNTED:,}" if number > MOST_COUNTED else f"{number:,}"


def _all_is_well(present: Present) -> Notice:
    since = f" since {numbers.time(present.daemon.since)} UTC" if present.daemon.since else ""
    if present.topics is not None and present.daemon.is_running is None:
        return Notice("Messages of Kafka topics are loaded. Nothing needs a person.", "good")
    if present.daemon.is_running is None:
        return Notice(f"Whether a daemon watches {present.folder.folder} is not known.")
    return Notice(f"A daemon watches {present.folder.folder}{since}. Nothing needs a person.", "good")


def tiles(present: Present) -> str:
    steps, folder = present.steps, present.folder
    oldest, unit = numbers.seconds(folder.oldest_seconds)
    waiting = (
        f"{numbers.size(folder.bytes)}, the oldest for {oldest} {unit}"
        if folder.files
        else "the folder is empty"
    )
    waiting = f"or more; {waiting}" if folder.has_more else waiting
    is_late: Tone = "warn" if (folder.oldest_seconds or 0) > LONG_SECONDS else ""
    last = steps[-7:-1]
    found = [
        _tile_of_daemon(present),
        Tile("Waiting", numbers.count(folder.files), noun(folder.files, "file"), waiting, is_late),
        Tile(
            "Loaded now", numbers.rate(_rate(steps, "loaded")), "files/s", _in_hour(steps, "loaded", "file")
        ),
        Tile("Rows now", numbers.rate(_rate(steps, "rows")), "rows/s", _in_hour(steps, "rows", "row")),
        _tile_of_seconds(last),
        _tile_of_outcome(steps, "Duplicates", "duplicate", "record", ""),
        _tile_of_outcome(steps, "Rejected", "rejected", "record", "warn"),
        _tile_of_outcome(steps, "Failed", "failed", "file", "bad"),
        _tile_of_workers(present),
        _tile_of_database(present),
    ]
    return markup.tiles(found)


def _rate(steps: Sequence[Step], field: str) -> float:
    """Returns the rate of the last step that has ended."""
    return getattr(steps[-2], field) / STEP if len(steps) > 1 else 0.0


def _in_hour(steps: Sequence[Step], field: str, what: str) -> str:
    return f"{counted(sum(getattr(step, field) for step in steps), what)} in the last hour"


def _tile_of_seconds(last: Sequence[Step]) -> Tile:
    medians = [step.median_seconds for step in last if step.median_seconds is not None]
    slow = [step.p95_seconds for step in last if step.p95_seconds is not None]
    value, unit = numbers.seconds(sorted(medians)[len(medians) // 2] if medians else None)
    within = " ".join(numbers.seconds(max(slow))) if slow else ""
    note = f"from opening to COMMIT; 95 of 100 within {within}" if slow else "no file in the last minute"
    return Tile("Time to load a file", value, unit, note)


def _tile_of_outcome(steps: Sequence[Step], label: str, field: str, what: str, tone: Tone) -> Tile:
    number = sum(getattr(step, field) for step in steps)
    return Tile(label, numbers.count(number), noun(number, what), "in the last hour", tone if number else "")


def _tile_of_daemon(present: Present) -> Tile:
    daemon = present.daemon
    if daemon.is_running is None:
        why = "the folder can't be listed" if present.folder.error else ""
        return Tile("Daemon", "not known", "", why)
    if not daemon.is_running:
        return Tile("Daemon", "not running", "", "nothing is loaded", "warn")
    since = f"since {numbers.time(daemon.since)}" if daemon.since else ""
    return Tile("Daemon", "running", "", since, "good")


def _tile_of_workers(present: Present) -> Tile:
    sessions = present.ledger.sessions if present.ledger else None
    note = f"{sessions.busy} of {sessions.all} database sessions busy" if sessions else ""
    return Tile("Workers", numbers.NONE if present.workers is None else str(present.workers), "", note)


def _tile_of_database(present: Present) -> Tile:
    if present.ledger is None and present.published is not None and not present.trouble:
        is_away = bool(present.published.trouble)
        return Tile("Kafka", "away" if is_away else "ok", "", "", "bad" if is_away else "")
    if present.ledger is None or present.trouble:
        return Tile("Database", "away", "", "looking for it", "bad")
    server = present.ledger.server
    return Tile("Database", numbers.size(server.bytes), "", f"PostgreSQL {server.version}, {server.database}")


def waiting(present: Present) -> str:
    """Lists the oldest files, once they have waited for a while."""
    shown = [file for file in present.folder.oldest if file.seconds > 1]
    if not shown:
        return markup.notices(Notice("No file waits."))
    columns = [Column("file", "name"), Column("size", "number"), Column("waits", "number"), Column("reason")]
    rows = [
        (
            file.name,
            numbers.size(file.bytes),
            " ".join(numbers.seconds(file.seconds)),
            file.reason or "its turn comes",
        )
        for file in shown
    ]
    return markup.table(columns, rows)


def failures(found: Sequence[Failure]) -> str:
    if not found:
        return markup.notices(Notice("No failed file waits for a person.", "good"))
    return markup.problems([_failure(failure) for failure in found])


def _failure(failure: Failure) -> Problem:
    name = shlex.quote(failure.name)
    name = f"./{name}" if name.startswith("-") else name
    steps = [
        ("fixed it in place? load it again", f"python main.py replay failed {name}"),
        ("no need to? note that you know of it", f"python main.py replay failed --dismiss {name}"),
    ]
    return Problem(failure.name, f"{numbers.time(failure.failed_at)} UTC", failure.reason, steps)


def rejects(ledger: Ledger) -> str:
    if not ledger.rejects:
        return markup.notices(Notice("No rejected record is open.", "good"))
    counts = ", ".join(f"{number:,} {reason}" for reason, number in ledger.reject_counts.items())
    columns = [
        Column("file", "name"),
        Column("record"),
        Column("reason"),
        Column("detail"),
        Column("UTC", "number"),
    ]
    rows = [_reject(reject) for reject in ledger.rejects]
    steps = [
        ("write them into a file", 'python main.py sql "select * from open_rejects" --json > rejects.json'),
        ('fix each "original" there, then', "python main.py replay rejected --edited rejects.json"),
    ]
    return markup.problems([Problem(counts, "", "", steps)]) + markup.table(columns, rows)


def _reject(reject: OpenReject) -> tuple[str, ...]:
    return reject.file, reject.path, reject.reason, reject.detail, numbers.time(reject.rejected_at)


def last_files(ledger: Ledger) -> str:
    if not ledger.last_files:
        notice = Notice(
            "No file was loaded yet. Drop one into the watch folder, or let the demo write some:",
            "",
            "python main.py demo",
        )
        return markup.notices(notice)
    columns = [
        Column("UTC"), Column("file", "name"), Column("outcome"), Column("inserted", "number"),
        Column("duplicate", "number"), Column("rejected", "number"),
    ]  # fmt: skip
    return markup.table(columns, [_file(entry) for entry in ledger.last_files])


def _file(entry: FileEntry) -> tuple[str, ...]:
    counts = (entry.rows_inserted, entry.rows_duplicate, entry.rows_rejected)
    return numbers.time(entry.finished_at), entry.name, entry.state, *map(numbers.count, counts)
