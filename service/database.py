"""The database of the settings, for as long as a command needs it."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from psycopg2.extensions import connection as Connection

from config import Settings
from db import schema
from db.connection import Database
from db.embedded.server import Embedded
from db.queries import keeps_commits, locks
from processing.errors import DatabaseUnavailable
from service.events import CommitsUnsafe, LocksFew, Publish, Resource
from service.outage import Outage
from service.signals import StopSignal


@contextmanager
def open_database(
    settings: Settings, is_cancelled: Callable[[], bool] = lambda: False
) -> Iterator[Callable[[], Database]]:
    """Yields a function that returns the database, starting the embedded server first if it is not running.

    Waiting for the embedded server raises StartCancelled as soon as is_cancelled() is true.
    """
    outside = settings.outside_database
    if outside is not None:
        yield lambda: Database(outside)
        return
    with Embedded(settings.data_folder, is_cancelled) as embedded:

        def ensure_running() -> Database:
            embedded.ensure_running()
            return Database(embedded.url)

        yield ensure_running


@contextmanager
def connected(database: Database) -> Iterator[Connection]:
    """Connects to the database and applies the schema."""
    with closing(database.connect()) as connection:
        schema.apply(connection)
        yield connection


@contextmanager
def connected_for_reading(database: Database) -> Iterator[Connection]:
    """Connects also to a server that is read-only, such as a standby; applies the schema where it can."""
    with closing(database.connect(may_be_read_only=True)) as connection:
        schema.apply_or_check(connection)
        yield connection


def prepare_database(
    ensure_running: Callable[[], Database], publish: Publish, stop: StopSignal, *, once: bool
) -> Database | None:
    """Applies the schema as soon as the database answers, and returns it; None if asked to stop before.

    Later outages are waited for by the daemon itself, at its inbox: then files, workers and the folder go on.
    """
    outage: Outage | None = None
    while not stop.event.is_set():
        try:
            database = ensure_running()
            with connected(database) as connection:
                if not keeps_commits(connection):
                    publish(CommitsUnsafe())
                found = locks(connection)
                if found.days < found.wanted_days:
                    publish(LocksFew(found.setting, found.days, found.wanted, found.wanted_days))
            return database
        except DatabaseUnavailable as error:
            if stop.event.is_set():
                break
            outage = outage or Outage(Resource.DATABASE, publish)
            outage.postpone(error, once=once)
            stop.event.wait(outage.next_try - time.monotonic())
    return None
