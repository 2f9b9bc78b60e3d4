"""The database of the settings for reading: opened when first asked, and again after an outage."""

from collections.abc import Callable
from contextlib import ExitStack
from threading import Lock
from types import TracebackType
from typing import Self, TypeVar

from psycopg2.extensions import connection as Connection

from config import Settings
from db.connection import Database
from db.readers import Readers
from service.database import open_database

T = TypeVar("T")


class Reading:
    """Answers questions of several threads; a database that is not there yet is looked for with each."""

    def __init__(self, settings: Settings, is_cancelled: Callable[[], bool], seconds: float = 10.0) -> None:
        """Opens nothing."""
        self._settings = settings
        self._is_cancelled = is_cancelled
        self._opening = Lock()
        self._opened = ExitStack()
        self._ensure_running: Callable[[], Database] | None = None
        self._readers = Readers(self._database, seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._readers.close()
        self._opened.close()

    def ask(self, question: Callable[[Connection], T]) -> T:
        """Returns the answer; raises DatabaseUnavailable, also after the time limit, or Misconfigured."""
        return self._readers.ask(question)

    def _database(self) -> Database:
        with self._opening:  # the embedded server is entered once
            if self._ensure_running is None:
                opening = open_database(self._settings, self._is_cancelled)
                self._ensure_running = self._opened.enter_context(opening)
            return self._ensure_running()
