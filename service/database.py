"""The database of the settings, for as long as a command needs it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from typing import TypeVar

from psycopg2.extensions import connection as Connection

from config import Settings
from db import ledger_name, schema
from db.connection import Database
from db.embedded.server import Embedded, StartCancelled, has_cluster
from db.patience import WaitCancelled, ask
from db.queries import connections_allowed, keeps_commits, locks
from db.session import is_pooled
from environment import forget_libpq_variables
from processing.errors import DatabaseUnavailable, SourceUnavailable
from service import marker
from service.capacity import most_workers, wanted_workers
from service.events import (
    CommitsUnsafe,
    DatabaseNew,
    DatabaseSlow,
    LocksFew,
    MarkerUnwritten,
    PoolerFound,
    Publish,
    Resource,
    WorkersFewer,
)
from service.kept_client import KeptClient
from service.marker import Marker
from service.marker_store import store_of
from service.outage import wait_for
from service.signals import StopSignal

T = TypeVar("T")

#: A new index of large tables takes minutes.
_APPLY_SECONDS = 3600.0

_WATCH_SECONDS = 1.0

#: The longest wait for a connection that is only to show whether there can be one.
_REACH_SECONDS = 4.0


@contextmanager
def open_database(
    settings: Settings,
    is_cancelled: Callable[[], bool] = lambda: False,
    publish: Publish = lambda event: None,
    on_gone: Callable[[], None] | None = None,
    *,
    may_create: bool = False,
    accepts_new: bool = False,
) -> Iterator[Callable[[], Database]]:
    """Yields a function that returns the database, starting the embedded server first if it is not running.

    Makes a cluster only with may_create, and only where the marker names no other database, or with
    accepts_new. Waiting for the embedded server raises StartCancelled as soon as is_cancelled() is true.
    Calls on_gone() if the cluster is moved or removed meanwhile, and raises Misconfigured in the end.
    """
    outside = settings.outside_database
    if outside is not None:
        yield lambda: Database(outside)
        return
    if not has_cluster(settings.data_folder):
        found = None if accepts_new else store_of(settings, KeptClient(settings.s3_endpoint_url)).read()
        if found is not None:
            raise marker.refusal(str(settings.watch_folder), found, f"a new one in {settings.data_folder}")
        if not may_create:
            raise DatabaseUnavailable(
                f"no database here yet: the daemon makes one in {settings.data_folder} when it first starts"
            )

    def say_slow(reason: str) -> None:
        publish(DatabaseSlow(reason))

    forget_libpq_variables()
    with Embedded(settings.data_folder, is_cancelled, say_slow, may_create=may_create) as embedded:

        def ensure_running() -> Database:
            embedded.ensure_running()
            return Database(embedded.url)

        with _watched(embedded, on_gone) if on_gone else nullcontext():
            yield ensure_running


def has_database(settings: Settings) -> bool:
    """Returns whether there is a database to be asked: one of its own, or one that a daemon has made."""
    return settings.outside_database is not None or has_cluster(settings.data_folder)


def check_reachable(settings: Settings, seconds: float = _REACH_SECONDS) -> None:
    """Connects to the database where it is, and starts none; raises DatabaseUnavailable or Misconfigured."""
    embedded = Embedded(settings.data_folder, may_create=False)
    database = Database(settings.outside_database or embedded.url)
    deadline = time.monotonic() + seconds
    try:
        database.connect(is_cancelled=lambda: time.monotonic() >= deadline).close()
    except WaitCancelled:
        raise DatabaseUnavailable(f"it does not answer for {seconds:g} s") from None


@contextmanager
def _watched(embedded: Embedded, on_gone: Callable[[], None]) -> Iterator[None]:
    """Looks every second whether the cluster is at its place: an idle daemon would not notice before long."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_WATCH_SECONDS):
            with suppress(OSError):  # a disk that does not answer is no disk that is gone
                if embedded.is_gone():
                    on_gone()
                    return

    thread = threading.Thread(target=watch, name="watch of the cluster", daemon=True)
    with suppress(RuntimeError):  # no thread to be had: the next outage shows it, too
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        if thread.is_alive():
            thread.join()
    embedded.check_place()


@contextmanager
def connected(database: Database, is_cancelled: Callable[[], bool] = lambda: False) -> Iterator[Connection]:
    """Connects to the database and applies the schema; both end with WaitCancelled once is_cancelled()."""
    with closing(database.connect(is_cancelled=is_cancelled)) as connection:
        ask(connection, lambda: schema.apply(connection), is_cancelled, _APPLY_SECONDS)
        yield connection


@contextmanager
def connected_to_load(settings: Settings, database: Database) -> Iterator[Connection]:
    """Connects, applies the schema, and refuses a database that is not the one of the folder's files."""
    with connected(database) as connection:
        _refuse_another(settings, connection, KeptClient(settings.s3_endpoint_url))
        yield connection


@contextmanager
def connected_for_reading(database: Database) -> Iterator[Connection]:
    """Connects also to a server that is read-only, such as a standby; applies the schema where it can."""
    with closing(database.connect(may_be_read_only=True)) as connection:
        ask(connection, lambda: schema.apply_or_check(connection), seconds=_APPLY_SECONDS)
        yield connection


def wait_for_place(
    settings: Settings, client: KeptClient, publish: Publish, stop: StopSignal, *, once: bool
) -> None:
    """Waits until a bucket answers, so that a new database is made only for what has none yet.

    Raises StartCancelled once asked to stop.
    """
    if settings.bucket is None:
        return

    def look() -> bool:
        store_of(settings, client).read()
        return True

    if not wait_for(look, {SourceUnavailable: Resource.BUCKET}, publish, stop, once=once):
        raise StartCancelled("it is no longer needed")


def prepare_database(
    settings: Settings,
    ensure_running: Callable[[], Database],
    client: KeptClient,
    publish: Publish,
    stop: StopSignal,
    *,
    once: bool,
    accepts_new: bool = False,
) -> tuple[Database, Settings] | None:
    """Applies the schema as soon as the database answers; None if asked to stop before.

    Returns the database, and the settings with as many workers as it has connections for.
    Refuses a database that is not the one of the folder's files, except with accepts_new.
    Later outages are waited for by the daemon itself, at its inbox: then files, workers and the folder go on.
    """

    def look(connection: Connection) -> int:
        return _look_at(connection, settings, client, publish, accepts_new=accepts_new)

    found = _wait_for(ensure_running, look, publish, stop, once=once)
    return None if found is None else (found[0], _limit_workers(settings, found[1], publish))


def prepare_stream_database(
    ensure_running: Callable[[], Database], publish: Publish, stop: StopSignal
) -> bool:
    """Applies the schema as soon as the database answers; False if asked to stop before."""

    def look(connection: Connection) -> None:
        if ledger_name.find(connection) is None:
            ledger_name.give(connection)
        _warn(connection, publish)

    return _wait_for(ensure_running, look, publish, stop, once=False) is not None


def _wait_for(
    ensure_running: Callable[[], Database],
    look: Callable[[Connection], T],
    publish: Publish,
    stop: StopSignal,
    *,
    once: bool,
) -> tuple[Database, T] | None:
    """Returns the database once it answers, and what a look at it has found; None if asked to stop."""

    def attempt() -> tuple[Database, T]:
        database = ensure_running()
        with connected(database, stop.event.is_set) as connection:
            return database, ask(connection, partial(look, connection), stop.event.is_set)

    away = {DatabaseUnavailable: Resource.DATABASE, SourceUnavailable: Resource.BUCKET}
    return wait_for(attempt, away, publish, stop, once=once)


def _look_at(
    connection: Connection,
    settings: Settings,
    client: KeptClient,
    publish: Publish,
    *,
    accepts_new: bool,
) -> int:
    """Returns how many connections the database allows, if it is the one of the folder's files."""
    if not accepts_new:
        _refuse_another(settings, connection, client)
    _mark(settings, connection, client, publish)
    _warn(connection, publish)
    return connections_allowed(connection)


def _limit_workers(settings: Settings, connections: int, publish: Publish) -> Settings:
    wanted, most = wanted_workers(settings), most_workers(connections)
    if wanted > most:
        publish(WorkersFewer(most, wanted, connections))
    return settings.model_copy(update={"workers": min(wanted, most)})


def _refuse_another(settings: Settings, connection: Connection, client: KeptClient) -> None:
    found = store_of(settings, client).read()
    if found is not None and found.ledger != ledger_name.find(connection):
        raise marker.refusal(str(settings.watch_folder), found, _place(settings, connection))


def _mark(settings: Settings, connection: Connection, client: KeptClient, publish: Publish) -> None:
    """Writes into the folder which ledger its files go into; gives the ledger its name if it has none."""
    place = _place(settings, connection)
    ledger = ledger_name.find(connection)
    if ledger is None:
        if ledger_name.give(connection):
            publish(DatabaseNew(place))
        ledger = ledger_name.find(connection)
    wanted = Marker(str(ledger), place)
    try:
        store = store_of(settings, client)
        if store.read() != wanted:
            store.write(wanted)
    except OSError as error:
        # A full disk must not stop the loading, which empties it.
        publish(MarkerUnwritten(str(settings.watch_folder), error.strerror or str(error)))


def _place(settings: Settings, connection: Connection) -> str:
    if settings.outside_database is None:
        return f"the embedded database in {settings.data_folder}"
    info = connection.info
    return f"the database {info.dbname} on {info.host}:{info.port}"


def _warn(connection: Connection, publish: Publish) -> None:
    if not keeps_commits(connection):
        publish(CommitsUnsafe())
    if is_pooled(connection):
        publish(PoolerFound())
    found = locks(connection)
    if found.days < found.wanted_days:
        publish(LocksFew(found.setting, found.days, found.wanted, found.wanted_days))
