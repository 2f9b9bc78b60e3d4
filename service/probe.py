"""Asks the database over a connection of its own whether it is well, while the daemon goes on."""

import time
from collections.abc import Callable
from contextlib import closing
from threading import Thread

from db.connection import Database, translate_errors
from processing.batch import FileTask
from processing.errors import DatabaseUnavailable, Misconfigured, TransactionFailed

#: The database counts as away if it does not answer within this time.
PROBE_SECONDS = 10.0

#: Writes a row, to be rolled back: a server that reads but can't write is not well.
_QUESTION = """
    SET LOCAL lock_timeout = '2s';
    SET LOCAL statement_timeout = '5s';
    INSERT INTO mobileye_data.ingested_files (file_id, name, last_name, size, state, started_at, error)
    VALUES (nextval('mobileye_data.file_ids'), '', '', 0, 'failed', now(), 'a probe, rolled back')
"""


class Probe:
    """One question to the database, and the failed batches that its answer decides about."""

    def __init__(
        self, database: Database, on_answer: Callable[[], None], seconds: float = PROBE_SECONDS
    ) -> None:
        """Asks nothing yet. on_answer is called in a thread of the probe."""
        self.failed: list[tuple[list[FileTask], float, TransactionFailed]] = []
        self.complaint: Exception | None = DatabaseUnavailable(f"it does not answer for {seconds:g} s")
        self._database = database
        self._on_answer = on_answer
        self._deadline = time.monotonic() + seconds
        self._is_done = False

    def start(self) -> None:
        """Asks in a thread of its own, so that the daemon does not wait."""
        Thread(target=self._ask, daemon=True).start()

    def is_over(self) -> bool:
        """Returns whether the answer is there, or came not in time."""
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
        self._on_answer()
