"""The composition of the daemon: makes all its parts, and starts none."""

import queue
from collections.abc import Callable
from functools import partial

from config import Settings
from db.connection import Database
from service.capacity import wanted_workers
from service.daemon import Daemon
from service.discovery import FileDiscovery
from service.events import Publish
from service.inbox import FileArrived, Inbox, ScanWanted
from service.loader_factory import LoaderFactory
from service.pool import Pool
from service.presence import Presence
from service.signals import StopSignal


def make_daemon(
    settings: Settings,
    database: Database,
    ensure_running: Callable[[], Database],
    publish: Publish,
    stop: StopSignal,
    *,
    once: bool,
    presence: Presence | None = None,
) -> Daemon:
    """Returns a daemon with all that it needs; ensure_running tells where the database is after an outage."""
    inbox: Inbox = queue.SimpleQueue()
    discovery = FileDiscovery(
        str(settings.folder),
        settings.observer,
        publish,
        presence or Presence(str(settings.folder)),
        on_file=lambda name: inbox.put(FileArrived(name)),
        on_names_lost=lambda: inbox.put(ScanWanted()),
        own_names=settings.own_names,
    )
    pool = partial(make_pool, settings)
    return Daemon(settings, database, ensure_running, pool, discovery, inbox, publish, stop, once=once)


def make_pool(settings: Settings, database: Database) -> Pool:
    """Returns a pool of workers that load the settings' folder into the database."""
    start = LoaderFactory(
        str(settings.folder),
        str(settings.failed),
        str(settings.archive or ""),
        settings.on_loaded,
        settings.max_file_bytes,
        database,
        settings.max_reject_ratio,
        settings.quiet_seconds,
        settings.max_future_hours,
    )
    return Pool(wanted_workers(settings), start, settings.quiet_seconds)
