"""What the daemon says in its log: what it watches, what became of each file, what it has done."""

import os
from collections import Counter
from collections.abc import Sequence

from psycopg2.extensions import parse_dsn

from config import Settings
from db.queries import Locks
from monitor.log import Log
from processing.batch import Outcome
from processing.printable import printable

#: The event of a file of which nobody can tell whether it is being written.
HIDDEN_WRITERS = "writers can't be seen"

#: What of a connection string may be shown.
_SHOWN = ("host", "port", "dbname", "user", "service")


def announce(log: Log, settings: Settings) -> None:
    """What is watched, where the database is, how to query it."""
    folder = printable(str(settings.folder))
    log.info("watching", folder=folder, observer=settings.observer, workers=settings.workers)
    outside = settings.outside_database
    if outside is None:
        log.info("database", embedded_in=printable(str(settings.data_folder)))
    else:
        shown = {name: value for name, value in parse_dsn(outside).items() if name in _SHOWN}
        log.info("database", **shown)
    log.info("query it", with_command="python main.py sql 'select * from vehicle_status'")


def warn_of_fsync(log: Log) -> None:
    """We delete a file since its rows are committed; then they must be kept."""
    reason = "fsync=off: if its machine crashes it may lose rows whose files are deleted"
    log.warning("the database is not safe", reason=reason)


def warn_of_hidden_writers(log: Log, outcome: Outcome) -> None:
    """Then time alone tells whether it is whole; to be told once, with the first file of the kind."""
    reason = "another user's file, or a network file system: it must be unchanged for QUIET_SECONDS instead"
    advice = "write under a temporary name and rename, or give the daemon the writer's user or CAP_LEASE"
    log.warning(HIDDEN_WRITERS, file=printable(outcome.name), reason=reason, advice=advice)


def warn_of_locks(log: Log, locks: Locks) -> None:
    """A transaction over all partitions must fit into the server's lock table: it has as many as do."""
    if locks.days < locks.wanted_days:
        reason = (
            f"max_locks_per_transaction={locks.setting}: only {locks.days:,} days of a table get a partition "
            f"of their own; set it to {locks.wanted} for {locks.wanted_days:,}"
        )
        log.warning("the database has few locks", reason=reason)


def log_outcome(log: Log, outcome: Outcome) -> None:
    """One line for a file that has come to its end."""
    pairs: dict[str, object] = {"file": printable(outcome.name)}
    if outcome.kind:
        counts = outcome.counts
        pairs |= {"kind": outcome.kind, "rows": counts.read, "inserted": counts.inserted}
        pairs |= {"duplicate": counts.duplicate, "rejected": counts.rejected}
    pairs["seconds"] = round(outcome.seconds, 4)
    if outcome.target:
        pairs["moved_to"] = printable(os.path.relpath(outcome.target))
    if outcome.reason:
        pairs["reason"] = outcome.reason
    write = log.info if outcome.state != "failed" and not outcome.reason else log.warning
    write(outcome.state, **pairs)


def log_waiting(log: Log, outcome: Outcome) -> None:
    """A file that has been tried several times, and why."""
    log.info("waiting", file=printable(outcome.name), reason=outcome.reason)


def log_suspects(log: Log, names: Sequence[str], reason: str, pause: float) -> None:
    """Files that failed while the database was well: the one, or how many; next: in how many seconds."""
    which: dict[str, object] = {"file": printable(names[0])} if len(names) == 1 else {"files": len(names)}
    log.warning("suspected", **which, reason=reason, next=round(pause, 1))


def say_goodbye(log: Log, totals: Counter[str]) -> None:
    """What was done."""
    counted = ("loaded", "duplicate", "failed", "waiting", "rows", "rejected")
    log.info("stopped", **{name: totals[name] for name in counted})
