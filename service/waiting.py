"""Decides how long a file waits before it is tried again, and what may be done with it then."""

import math
import operator

from processing.batch import FileTask
from processing.source import Identity
from service.known_files import FIRST_DELAY, KnownFile
from sources.policy import QUIET_SECONDS

#: However many files wait, so many of them are tried again in a second at most: a tenth of what a core can.
_RETRIES_A_SECOND = 500


class WaitingPolicy:
    """The pauses of files. Each method takes the present time, on the monotonic clock."""

    def __init__(
        self,
        settle_seconds: float,
        longest_delay: float,
        quiet_seconds: float = QUIET_SECONDS,
        retries_a_second: float = _RETRIES_A_SECOND,
    ) -> None:
        self._retries_a_second = retries_a_second
        self.longest_delay = longest_delay
        self._settle_seconds = settle_seconds
        self._quiet_seconds = quiet_seconds

    def postpone(
        self, file: KnownFile, now: float, identity: Identity | None, crowd: int, *, must_be_quiet: bool
    ) -> float:
        """Returns when a file that was not ready is due; crowd is how many files wait like it.

        must_be_quiet: it is not read before it has been unchanged for QUIET_SECONDS.
        """
        is_same = operator.eq if must_be_quiet else _is_same
        if not file.has_waited or not is_same(file.identity, identity):
            file.since, file.delay, file.tries, file.undisposed = now, FIRST_DELAY, 0, None
        file.identity = identity
        pause = crowd / self._retries_a_second
        # Rounded up: a crowd is tried batch by batch, not one by one.
        due = now + file.delay if file.delay > pause else math.ceil(now + pause)
        stable_at, quiet_at = file.since + self._settle_seconds, file.since + self._quiet_seconds
        if now < stable_at < due:
            due = stable_at
        if must_be_quiet and now < quiet_at:  # however many wait: none is read before
            due = quiet_at
        file.delay = min(file.delay * 2, self.longest_delay)
        file.tries += 1
        return due

    def suspend(self, file: KnownFile, now: float, seconds: float, longest: float) -> float:
        """Returns the pause of a file that kept a worker for seconds; it grows with each call.

        It is no shorter than the try took, so that the file has a worker for half of the time at most.
        """
        if not file.has_waited:
            file.since = now
        pause, file.delay = max(file.delay, seconds), min(file.delay * 2, longest)
        file.tries += 1
        return pause

    def task(self, file: KnownFile, now: float, poison_reason: str | None) -> FileTask:
        """Returns what a worker has to know of a file: it may have waited for long enough."""
        return FileTask(
            file.name,
            stable=file.identity if now >= file.since + self._settle_seconds else None,
            poison_reason=poison_reason,
            undisposed=file.undisposed,
            quiet=file.identity if now >= file.since + self._quiet_seconds else None,
        )


def _is_same(one: Identity | None, other: Identity | None) -> bool:
    """Compares content only: a disposal that fails moves the file there and back."""
    return one == other or (one is not None and other is not None and one.same_content_as(other))
