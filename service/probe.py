"""Asks the database whether it is well, in a thread of its own: the daemon goes on."""

import time
from collections.abc import Callable
from threading import Thread

from processing.batch import FileTask
from processing.errors import DatabaseUnavailable, Misconfigured, TransactionFailed

#: The database counts as away if it does not answer within this time.
PROBE_SECONDS = 10.0


class Probe:
    """One question to the database, and the failed batches that its answer decides about."""

    def __init__(
        self, ask: Callable[[], None], on_answer: Callable[[], None], seconds: float = PROBE_SECONDS
    ) -> None:
        """Asks nothing yet. ask and on_answer are called in a thread of the probe."""
        self.failed: list[tuple[list[FileTask], float, TransactionFailed]] = []
        self.complaint: Exception | None = DatabaseUnavailable(f"it does not answer for {seconds:g} s")
        self._question = ask
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
            self._question()
            self.complaint = None
        except (DatabaseUnavailable, Misconfigured) as error:
            self.complaint = error
        self._is_done = True
        self._on_answer()
