"""The main job: prepares folders and database, then lets the daemon load files until it is asked to stop."""

import os
import pwd
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from config import Settings
from db.connection import Database
from db.embedded.server import StartCancelled
from db.queries import keeps_commits, locks
from monitor.event_log import EventLog
from monitor.log import Log, adopt_libraries, open_log
from processing.errors import DatabaseUnavailable, Misconfigured
from service.build import make_pool
from service.daemon import Daemon
from service.database import connected, open_database
from service.events import CommitsUnsafe, LocksFew, Publish, Resource, Started, Stopped
from service.housekeeping import Housekeeping
from service.outage import Outage
from service.signals import StopSignal
from sources.claims import CLAIMS


def run(settings: Settings, *, once: bool) -> int:
    """Prepares the folders and the database, loads, and returns the exit code."""
    with open_log(settings.log_format) as log:
        return _run(settings, log, once=once)


def _run(settings: Settings, log: Log, *, once: bool) -> int:
    stop = StopSignal()
    adopt_libraries(log)
    publish = EventLog(log).write
    totals: Counter[str] = Counter()
    with stop.on_signals():
        prepare_folders(settings)
        with suppress(StartCancelled), open_database(settings, stop.event.is_set) as ensure_running:
            if prepare_database(ensure_running, publish, stop, once=once):
                publish(_started(settings))
                with Housekeeping(ensure_running, publish):
                    totals = make_daemon(settings, ensure_running, publish, stop, once=once).run()
        publish(Stopped(totals))
    return 1 if once and (totals["failed"] or totals["waiting"] or stop.event.is_set()) else 0


def _started(settings: Settings) -> Started:
    outside = settings.outside_database
    embedded_in = str(settings.data_folder) if outside is None else None
    return Started(str(settings.folder), settings.observer, settings.workers, embedded_in, outside)


def make_daemon(
    settings: Settings,
    ensure_running: Callable[[], Database],
    publish: Publish,
    stop: StopSignal,
    *,
    once: bool,
) -> Daemon:
    """Returns a daemon with all that it needs."""
    database = ensure_running()
    return Daemon(settings, database, ensure_running, partial(make_pool, settings), publish, stop, once=once)


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
    ensure_running: Callable[[], Database], publish: Publish, stop: StopSignal, *, once: bool
) -> bool:
    """Applies the schema as soon as the database answers; returns false if asked to stop before."""
    outage: Outage | None = None
    while not stop.event.is_set():
        try:
            with connected(ensure_running()) as connection:
                if not keeps_commits(connection):
                    publish(CommitsUnsafe())
                found = locks(connection)
                if found.days < found.wanted_days:
                    publish(LocksFew(found.setting, found.days, found.wanted, found.wanted_days))
                return True
        except DatabaseUnavailable as error:
            if stop.event.is_set():
                break
            outage = outage or Outage(Resource.DATABASE, publish)
            outage.postpone(error, once=once)
            stop.event.wait(outage.next_try - time.monotonic())
    return False
