"""The main job: prepares folders and database, then has the daemon load files until it is told to stop."""

import os
import pwd
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from config import Settings
from db.connection import Database
from db.embedded.server import StartCancelled
from db.queries import keeps_commits, locks
from monitor.event_log import announce, say_goodbye, warn_of_fsync, warn_of_locks
from monitor.log import Log, adopt_libraries, make_log
from processing.errors import DatabaseUnavailable, Misconfigured
from service.daemon import Daemon
from service.database import connected, open_database
from service.housekeeping import Housekeeping
from service.outage import Outage
from service.signals import StopSignal
from sources.claims import CLAIMS


def run(settings: Settings, *, once: bool) -> int:
    """From the folders to the last word; the exit code."""
    log, stop = make_log(settings.log_format), StopSignal()
    adopt_libraries(log)
    totals: Counter[str] = Counter()
    with stop.on_signals():
        prepare_folders(settings)
        with suppress(StartCancelled), open_database(settings, stop.event.is_set) as ensure_running:
            if prepare_database(ensure_running, log, stop, once=once):
                announce(log, settings)
                with Housekeeping(ensure_running, log):
                    totals = Daemon(settings, ensure_running, log, stop, once=once).run()
        say_goodbye(log, totals)
    return 1 if once and (totals["failed"] or totals["waiting"] or stop.event.is_set()) else 0


def prepare_folders(settings: Settings) -> None:
    """Makes the folders; raises Misconfigured if files could not be moved between them."""
    folders = [folder for folder in (settings.folder, settings.failed, settings.archive) if folder]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Misconfigured(f"can't make the folder {folder}: {error.strerror}") from None
        _check_folder(folder, settings.folder)
    claims = settings.folder / CLAIMS
    if os.path.lexists(claims):
        _check_folder(claims, settings.folder)


def _check_folder(folder: Path, watched: Path) -> None:
    if not folder.is_dir():
        raise Misconfigured(f"{folder} has to be a folder")
    status = folder.stat()
    if not os.access(folder, os.W_OK | os.X_OK | os.R_OK):
        raise Misconfigured(f"can't read and write the folder {folder}: it is of the user {_user(status)}")
    if status.st_dev != watched.stat().st_dev:
        raise Misconfigured(f"{folder} has to be on the same file system as {watched}")


def _user(status: os.stat_result) -> str:
    try:
        return pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        return str(status.st_uid)


def prepare_database(
    ensure_running: Callable[[], Database], log: Log, stop: StopSignal, *, once: bool
) -> bool:
    """Applies the schema, as soon as the database answers; false if told to stop before that."""
    outage: Outage | None = None
    while not stop.event.is_set():
        try:
            with connected(ensure_running()) as connection:
                if not keeps_commits(connection):
                    warn_of_fsync(log)
                warn_of_locks(log, locks(connection))
                return True
        except DatabaseUnavailable as error:
            if stop.event.is_set():
                break
            outage = outage or Outage("the database", error, log)
            outage.postpone(error, once=once)
            stop.event.wait(outage.next_try - time.monotonic())
    return False
