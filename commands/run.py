"""The main job: prepares folders and database, then lets the daemon load files until it is asked to stop."""

import os
import pwd
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from psycopg2.extensions import connection as Connection

from config import Settings
from db.connection import Database
from db.embedded.server import StartCancelled
from db.patience import ask
from db.queries import connections_allowed, keeps_commits, locks
from db.session import is_pooled
from monitor.event_log import EventLog
from monitor.log import adopt_libraries, make_log
from processing.errors import DatabaseUnavailable, Misconfigured
from service.build import make_pool, wanted_workers
from service.capacity import most_workers
from service.daemon import Daemon
from service.database import connected, open_database
from service.events import (
    CommitsUnsafe,
    LocksFew,
    PoolerFound,
    Publish,
    Resource,
    Started,
    Stopped,
    WorkersFewer,
)
from service.housekeeping import Housekeeping
from service.outage import Outage
from service.signals import StopSignal
from sources.claims import CLAIMS


def run(settings: Settings, *, once: bool) -> int:
    """Prepares the folders and the database, loads, and returns the exit code."""
    log, stop = make_log(settings.log_format), StopSignal()
    adopt_libraries(log)
    publish = EventLog(log).write
    totals: Counter[str] = Counter()
    with stop.on_signals():
        prepare_folders(settings)
        with suppress(StartCancelled), open_database(settings, stop.event.is_set) as ensure_running:
            if connections := prepare_database(ensure_running, publish, stop, once=once):
                settings = limit_workers(settings, connections, publish)
                publish(_started(settings))
                with Housekeeping(ensure_running, publish):
                    totals = make_daemon(settings, ensure_running, publish, stop, once=once).run()
        publish(Stopped(totals))
    return 1 if once and (totals["failed"] or totals["waiting"] or stop.event.is_set()) else 0


def _started(settings: Settings) -> Started:
    outside = settings.outside_database
    embedded_in = str(settings.data_folder) if outside is None else None
    workers = wanted_workers(settings)
    return Started(str(settings.folder), settings.observer, workers, embedded_in, outside)


def limit_workers(settings: Settings, connections: int, publish: Publish) -> Settings:
    """Returns the settings with as many workers as there are connections for."""
    wanted, most = wanted_workers(settings), most_workers(connections)
    if wanted > most:
        publish(WorkersFewer(most, wanted, connections))
    return settings.model_copy(update={"workers": min(wanted, most)})


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
) -> int:
    """Applies the schema as soon as the database answers; returns how many connections that allows.

    Returns 0 if asked to stop before.
    """
    outage: Outage | None = None
    while not stop.event.is_set():
        try:
            with connected(ensure_running(), stop.event.is_set) as connection:
                return ask(connection, partial(look_at_server, connection, publish), stop.event.is_set)
        except DatabaseUnavailable as error:
            if stop.event.is_set():
                break
            outage = outage or Outage(Resource.DATABASE, publish)
            outage.postpone(error, once=once)
            stop.event.wait(outage.next_try - time.monotonic())
    return 0


def look_at_server(connection: Connection, publish: Publish) -> int:
    """Publishes what is unwise about the server; returns how many connections it allows."""
    if not keeps_commits(connection):
        publish(CommitsUnsafe())
    if is_pooled(connection):
        publish(PoolerFound())
    found = locks(connection)
    if found.days < found.wanted_days:
        publish(LocksFew(found.setting, found.days, found.wanted, found.wanted_days))
    return max(1, connections_allowed(connection))
