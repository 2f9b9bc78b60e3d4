"""Listens to the notifications of a bucket, which only wake: what they are about, the listing finds."""

import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread

from processing.errors import Misconfigured, SourceUnavailable
from service.bucket_discovery import Place
from service.events import Publish, QueueAnswered, QueueSilent
from sources.notifications import arrivals
from sources.queue import Queue

#: How long one request waits for messages; SQS allows no more.
_LISTEN_SECONDS = 20

#: The pause between two wakes, each of which costs a listing; what comes meanwhile is in the second one.
_WAKE_SECONDS = 1.0

#: The pause while the queue does not answer.
_LOST_SECONDS = 5.0


class QueueListener:
    """Calls from a thread of its own when objects of the place have arrived."""

    def __init__(self, queue: Queue, place: Place, publish: Publish) -> None:
        """Listens to nothing yet."""
        self._queue = queue
        self._place = place
        self._publish = publish
        self._is_over = Event()
        self._thread: Thread | None = None
        self._reason = ""  # why it does not answer, if so

    def start(self, on_arrival: Callable[[], None]) -> None:
        """Begins to listen if it does not yet; without a thread to be had, only the listing finds objects."""
        if self._thread is None:
            thread = Thread(target=self._run, args=(on_arrival,), name="queue of the bucket", daemon=True)
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def stop(self) -> None:
        self._is_over.set()

    def _run(self, on_arrival: Callable[[], None]) -> None:
        is_due, next_wake = False, 0.0
        while not self._is_over.is_set():
            reason = ""
            try:
                messages = self._queue.receive(1 if is_due or self._reason else _LISTEN_SECONDS)
                is_due = is_due or any(self._is_about_ours(message.text) for message in messages)
                self._queue.delete(messages)
            except (SourceUnavailable, Misconfigured) as error:
                reason = str(error)
            self._note(reason)
            if is_due and time.monotonic() >= next_wake:  # also by those that could not be deleted
                on_arrival()
                is_due, next_wake = False, time.monotonic() + _WAKE_SECONDS
            if reason:
                self._is_over.wait(_LOST_SECONDS)

    def _is_about_ours(self, text: str) -> bool:
        at = self._place.at
        return any(
            found.bucket == at.bucket and found.key.startswith(at.prefix) and self._place.wanted(found.key)
            for found in arrivals(text)
        )

    def _note(self, reason: str) -> None:
        """Publishes once that the queue does not answer, and that it does again."""
        if reason and not self._reason:
            self._publish(QueueSilent(reason))
        elif self._reason and not reason:
            self._publish(QueueAnswered())
        self._reason = reason
