"""The database of the settings, for as long as a command needs it."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from psycopg2.extensions import connection as Connection

from config import Settings, forget_libpq_variables
from db import schema
from db.connection import Database
from db.embedded.server import Embedded
from db.patience import ask

#: A new index of large tables takes minutes.
_APPLY_SECONDS = 3600.0


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
    forget_libpq_variables()
    with Embedded(settings.data_folder, is_cancelled) as embedded:

        def ensure_running() -> Database:
            embedded.ensure_running()
            return Database(embedded.url)

        yield ensure_running


@contextmanager
def connected(database: Database, is_cancelled: Callable[[], bool] = lambda: False) -> Iterator[Connection]:
    """Connects to the database and applies the schema; both end with WaitCancelled once is_cancelled()."""
    with closing(database.connect(is_cancelled=is_cancelled)) as connection:
        ask(connection, lambda: schema.apply(connection), is_cancelled, _APPLY_SECONDS)
        yield connection
