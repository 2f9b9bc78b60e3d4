"""The composition of the daemon: makes all its parts, and starts none."""

import queue
from collections.abc import Callable
from functools import partial

from config import Settings
from db.connection import Database
from service.bucket_claims import Claims
from service.capacity import wanted_workers
from service.daemon import Daemon
from service.destination import DatabaseDestination
from service.discovery import Discovery, FileDiscovery
from service.events import Publish
from service.inbox import FileArrived, Inbox, ScanWanted
from service.kept_client import KeptClient
from service.loader_factory import BucketFactory, FolderFactory, LoaderFactory, SourceFactory
from service.pool import Pool
from service.presence import Presence
from service.signals import StopSignal
from sources.policy import BucketPlace


def make_daemon(
    settings: Settings,
    database: Database,
    ensure_running: Callable[[], Database],
    client: KeptClient,
    publish: Publish,
    stop: StopSignal,
    *,
    once: bool,
    presence: Presence | None = None,
) -> Daemon:
    """Returns a daemon with all that it needs; ensure_running tells where the database is after an outage."""
    inbox: Inbox = queue.SimpleQueue()
    if settings.bucket is None:
        discovery: Discovery = folder_discovery(settings, publish, inbox, presence)
    else:
        claims = _shared_claims(ensure_running, settings.bucket)
        discovery = bucket_discovery(settings, settings.bucket, client, claims, publish, inbox)
    destination = DatabaseDestination(database, ensure_running, partial(make_pool, settings))
    return Daemon(settings, destination, discovery, inbox, publish, stop, once=once)


def make_pool(settings: Settings, database: Database) -> Pool:
    """Returns a pool of workers that load the settings' folder or bucket into the database."""
    start = LoaderFactory.of(settings, source_factory(settings), database)
    closing_seconds = settings.quiet_seconds if settings.bucket is None else 0.0
    return Pool(wanted_workers(settings), start, closing_seconds)


def source_factory(settings: Settings) -> SourceFactory:
    """Returns what makes the source of the settings, in a worker."""
    if settings.bucket is not None:
        return BucketFactory(settings.bucket, settings.bucket_ends, settings.s3_endpoint_url)
    return folder_factory(settings)


def folder_factory(settings: Settings) -> FolderFactory:
    """Returns what makes the source of a folder, in a worker."""
    return FolderFactory(
        str(settings.folder),
        str(settings.failed),
        str(settings.archive or ""),
        settings.on_loaded,
        settings.quiet_seconds,
    )


def folder_discovery(
    settings: Settings, publish: Publish, inbox: Inbox, presence: Presence | None
) -> FileDiscovery:
    """Returns what finds the files of the watch folder, and puts them into the inbox."""
    return FileDiscovery(
        str(settings.folder),
        settings.observer,
        publish,
        presence or Presence(str(settings.folder)),
        on_file=lambda name: inbox.put(FileArrived(name)),
        on_names_lost=lambda: inbox.put(ScanWanted()),
        own_names=settings.own_names,
    )


def bucket_discovery(
    settings: Settings, at: BucketPlace, client: KeptClient, claims: Claims, publish: Publish, inbox: Inbox
) -> Discovery:
    """Returns what finds the objects of a bucket that are claimed, and puts them into the inbox."""
    from service.bucket_discovery import BucketDiscovery, Place
    from service.bucket_queue import QueueListener
    from sources.queue import Queue

    place, listener = Place.of(at, settings.bucket_ends), None
    if url := settings.s3_queue_url:
        listener = QueueListener(Queue.at(url), place, publish)
    return BucketDiscovery(client.get(), place, claims, inbox.put, listener)


def _shared_claims(ensure_running: Callable[[], Database], at: BucketPlace) -> Claims:
    """Returns what divides a bucket among the daemons of one database."""
    from db import claims  # only a bucket needs it

    return claims.Claims(ensure_running, str(at))
