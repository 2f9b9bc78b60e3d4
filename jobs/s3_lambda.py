"""The function for AWS Lambda: loads the objects that events of S3 name, each row exactly once.

The ledger's entry of an object, which commits with its rows, makes a repeated event harmless.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

from config import LogFormat, Settings, load_settings
from jobs import s3_events
from jobs.invocation import Invocation
from jobs.object_loading import ObjectLoading
from monitor.event_log import EventLog
from monitor.log import make_log
from processing.errors import Misconfigured
from service.events import NothingToLoad, Publish

#: The time before the platform's deadline in which nothing is begun, and what waits is given up.
_RESERVE_SECONDS = 2.0


class Context(Protocol):
    """The platform's own knowledge of an invocation."""

    def get_remaining_time_in_millis(self) -> int: ...


class NotLoaded(Exception):
    """Objects of an event could not be loaded now: the platform is to deliver the event again."""


class Handler:
    """The function, with what it keeps from one invocation to the next."""

    def __init__(self, settings: Callable[[], Settings] = load_settings) -> None:
        """Reads no setting yet, and connects to nothing."""
        self._settings = settings
        self._loading: ObjectLoading | None = None
        self._publish: Publish = EventLog(make_log(LogFormat.TEXT)).write

    def __call__(self, event: object, context: Context) -> dict[str, Any] | None:
        """Loads what arrived; returns the messages of a queue that are to be delivered again.

        Without a queue it raises NotLoaded instead.
        """
        ends_at = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - _RESERVE_SECONDS
        call = s3_events.read(event)
        invocation = Invocation(call.items, lambda event: self._publish(event))
        try:
            loading = self._loading = self._loading or self._open()
        except Misconfigured as error:
            invocation.give_up(str(error))
        else:
            if call.items and not invocation.run(loading, ends_at):
                self._loading = None
        for part in call.passed_over:
            self._publish(NothingToLoad(f"no object has arrived by {part}"))
        if call.is_from_queue:
            messages = dict.fromkeys(item.message for item in invocation.left)
            return {"batchItemFailures": [{"itemIdentifier": message} for message in messages]}
        if invocation.left:
            raise NotLoaded(invocation.reason)
        return None

    def _open(self) -> ObjectLoading:
        settings = self._settings()
        self._publish = EventLog(make_log(settings.log_format, level=settings.log_level)).write
        return ObjectLoading(settings)


#: What the platform calls. It is kept as long as the process, and with it the connection.
handler = Handler()
