"""The main job: prepares folders and database, then has the daemon load files until it is told to stop."""

import os
from collections import Counter
from collections.abc import Callable

from commands.daemon import Daemon
from commands.database import connected, open_database
from commands.logs import Log, adopt_libraries, make_log
from commands.outage import BackOff
from commands.report import announce, say_goodbye
from commands.stop import Stop
from config import Settings
from db.connection import Database
from processing.errors import DatabaseUnavailable, Misconfigured


def run(settings: Settings, *, once: bool) -> int:
    """From the folders to the last word; the exit code."""
    log, stop = make_log(settings.log_format), Stop()
    adopt_libraries(log)
    totals: Counter[str] = Counter()
    with stop.on_signals():
        prepare_folders(settings)
        with open_database(settings) as running:
            if prepare_database(running, log, stop):
                announce(log, settings)
                totals = Daemon(settings, running, log, stop).run(once=once)
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
        if not os.access(folder, os.W_OK | os.X_OK | os.R_OK):
            raise Misconfigured(f"can't read and write the folder {folder}")
        if folder.stat().st_dev != settings.folder.stat().st_dev:
            raise Misconfigured(f"{folder} has to be on the same file system as {settings.folder}")


def prepare_database(running: Callable[[], Database], log: Log, stop: Stop) -> bool:
    """Applies the schema, as soon as the database answers; false if told to stop before that."""
    back_off, told = BackOff(), False
    while not stop.event.is_set():
        try:
            with connected(running()):
                return True
        except DatabaseUnavailable as error:
            if not told:
                log.warning("waiting for the database", reason=str(error))
            told = True
            stop.event.wait(back_off.next())
    return False
