"""Asks the database over a connection of its own whether it is well, without keeping the daemon waiting."""

import time
from collections.abc import Callable
from contextlib import closing
from threading import Thread

from db.connection import Database, translate_errors
from processing.batch import FileTask
from processing.errors import DatabaseUnavailable, Misconfigured, TransactionFailed

#: How long it may take to answer before it counts as away.
PROBE_SECONDS = 10.0

#: A row is written, and rolled back: a server that reads but can't write is not well.
_QUESTION = """
    SET LOCAL lock_timeout = '2s';
    SET LOCAL statement_timeout = '5s';
    INSERT INTO mobileye_data.ingested_files (file_id, name, last_name, size, state, started_at, error)
    VALUES (nextval('mobileye_data.file_ids'), '', '', 0, 'failed', now(), 'a probe, rolled back')
"""


class Probe:
    """One question, and the batches about which it decides; tell is given the probe when it has an answer."""

    def __init__(
        self, database: Database, tell: Callable[["Probe"], None], seconds: float = PROBE_SECONDS
    ) -> None:
        self.failed: list[tuple[list[FileTask], float, TransactionFailed]] = []
        self.complaint: Exception | None = DatabaseUnavailable(f"it does not answer for {seconds:g} s")
        self._database = database
        self._tell = tell
        self._deadline = time.monotonic() + seconds
        self._is_done = False

    def start(self) -> None:
        Thread(target=self._ask, daemon=True).start()

    def is_over(self) -> bool:
        """It has its answer, or none in time."""
        return self._is_done or time.monotonic() >= self._deadline

    def _ask(self) -> None:
        try:
            with (
                closing(self._database.connect()) as connection,
                translate_errors(),
                connection.cursor() as cursor,
            ):
                cursor.execute(_QUESTION)
                connection.rollback()
            self.complaint = None
        except (DatabaseUnavailable, Misconfigured) as error:
            self.complaint = error
        self._is_done = True
        self._tell(self)
