"""Tracks every known file: ready, delayed (and why), or in flight."""

import heapq
import math
import operator
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from processing.batch import FileTask, Outcome, Undisposed
from processing.source import Identity
from service.events import NextTry
from service.suspects import Suspects
from sources.policy import QUIET_SECONDS

#: A batch shares a transaction: so many files, or so many bytes, at most.
BATCH_FILES = 500
BATCH_BYTES = 8 * 1024 * 1024

#: The longest pause of a file that is suspected, or held back, in seconds.
_LONGEST_SUSPENSE = 60.0

_FIRST_DELAY = 0.2

#: However many files wait, so many of them are tried again in a second at most: a tenth of what a core can.
_RETRIES_A_SECOND = 500


@dataclass
class _Waiting:
    """A file that was not ready, or could not be removed; since: when it was first seen with this stamp."""

    identity: Identity | None
    since: float
    undisposed: Undisposed | None = None
    delay: float = _FIRST_DELAY
    tries: int = 0
    due: float = 0.0


class Backlog:
    """Every name is in one place: fresh (just heard of), ready, held, flying, or waiting until it is due.

    Held are files that might keep a worker for long: suspects, and those which wait for a lock. Only one of
    them is in flight at a time, alone.
    """

    def __init__(
        self,
        settle_seconds: float,
        longest_delay: float,
        quiet_seconds: float = QUIET_SECONDS,
        suspects: Suspects | None = None,
    ) -> None:
        self._settle_seconds = settle_seconds
        self._quiet_seconds = quiet_seconds
        self._longest_delay = longest_delay
        self._suspects = suspects or Suspects()
        self._apart: dict[str, None] = {}  # names that may be tried as held ones only
        self._held: dict[str, None] = {}
        self._fresh: dict[str, None] = {}
        self._ready: dict[str, None] = {}
        self._flying: dict[str, bool] = {}  # true: heard of again meanwhile
        self._waiting: dict[str, _Waiting] = {}
        self._due: list[tuple[float, str]] = []
        self._alone: dict[str, None] = {}

    def __len__(self) -> int:
        places = (self._fresh, self._ready, self._held, self._flying, self._waiting)
        return len(set[str]().union(*places))

    def on_event(self, name: str) -> None:
        """An event: the file comes before those that have been waiting, so that it is not late."""
        if name in self._flying:
            self._flying[name] = True
        elif name in self._apart:
            if name not in self._waiting:  # else its pause goes on
                self._held[name] = None
        else:
            self._ready.pop(name, None)
            self._fresh[name] = None

    def on_scan(self, names: Iterable[str]) -> None:
        """A scan: what was not known is ready."""
        known = self._fresh.keys() | self._flying.keys() | self._waiting.keys() | self._held.keys()
        self._ready.update(dict.fromkeys(name for name in names if name not in known))

    def keep_only(self, names: Iterable[str]) -> None:
        """Forgets what a scan did not find: somebody else took it."""
        present = set(names)
        places = (self._fresh, self._ready, self._held, self._waiting)
        for names_of in (*places, self._alone, self._apart):
            for name in [name for name in names_of if name not in present]:
                del names_of[name]
        self._suspects.keep_only(present)

    def next_due(self) -> float:
        """Returns when the next waiting file is to be tried again, on the monotonic clock."""
        return self._due[0][0] if self._due else math.inf

    def batch(
        self, share: int, size_of: Callable[[str], int | None], *, others_first: bool = False
    ) -> list[FileTask]:
        """The next files to load together, an equal share of what is there, now in flight.

        A held file comes first, if none is in flight, or last: where it would get the only worker.
        """
        self._wake_due()
        names = [] if others_first else self._take_held(size_of)
        names = names or self._take(share, size_of)
        names = names or self._take_held(size_of)
        self._flying.update(dict.fromkeys(names, False))
        return [self._work(name) for name in names]

    def settle(self, outcome: Outcome) -> int:
        """Books the outcome of a file; returns how often it was tried if it waits now."""
        name, again = outcome.name, self._flying.pop(outcome.name, False)
        if outcome.state == "contended":
            self._apart[name] = None
            self._suspend(name, outcome.seconds, self._longest_delay)
        elif outcome.state == "waiting" or outcome.undisposed is not None:
            unread = outcome.hides_writers and outcome.undisposed is None
            self._postpone(name, outcome.identity, must_be_quiet=unread)
            self._waiting[name].undisposed = outcome.undisposed
        else:
            self._forget(name)
        if outcome.state == "retry_alone":
            self._alone[name] = None
            self._enqueue(name)
        if again:
            self.on_event(name)
        return self.tries(name)

    def requeue(self, batch: Iterable[FileTask]) -> None:
        """The batch was not loaded, through no fault of its files."""
        for work in batch:
            self._flying.pop(work.name, None)
            self._enqueue(work.name)

    def note_loaded(self) -> None:
        """A batch was committed: evidence that the database was well."""
        self._suspects.note_loaded()

    def suspect(self, batch: list[FileTask], reason: str, seconds: float) -> NextTry:
        """Books that a batch failed after seconds though the database answers.

        Its files are tried alone, and are poison if that fails repeatedly.
        """
        self._apart.update(dict.fromkeys(work.name for work in batch))
        self.requeue(batch)
        if len(batch) > 1:
            return NextTry()
        name = batch[0].name
        self._suspects.count_strike(name, reason)
        if self._suspects.verdict(name):
            return NextTry(is_poison=True)
        return NextTry(self._suspend(name, seconds, _LONGEST_SUSPENSE))

    def set_back(self, batch: list[FileTask], seconds: float) -> None:
        """Books a setback, which a file may have caused but is never failed for.

        If it repeats, the files are tried one by one; one that meets it alone while others load is held back.
        """
        self.requeue(batch)
        is_alone = len(batch) == 1
        for name in [work.name for work in batch]:
            if not self._suspects.count_setback(name, is_alone=is_alone):
                continue
            if is_alone:
                self._apart[name] = None
                self._suspend(name, seconds, _LONGEST_SUSPENSE)
            else:
                self._suspects.forget([name])
                self._alone[name] = None

    def _suspend(self, name: str, seconds: float, longest: float) -> float:
        """Takes a file out of the queues for a pause, which grows with each call; returns its length.

        No shorter than the try took, so that it has a worker for half of the time at most.
        """
        self._drop(name)
        now = time.monotonic()
        known = self._waiting.setdefault(name, _Waiting(None, now))
        pause, known.delay = max(known.delay, seconds), min(known.delay * 2, longest)
        known.due = now + pause
        known.tries += 1
        heapq.heappush(self._due, (known.due, name))
        return pause

    def record_crash(self, batch: list[FileTask], reason: str, *, is_killed: bool) -> NextTry:
        """Books that the worker died: the files are tried alone, and are poison if that goes on."""
        self.requeue(batch)
        self._alone.update(dict.fromkeys(work.name for work in batch))
        if len(batch) > 1:
            return NextTry()
        name = batch[0].name
        self._suspects.count_crash(name, reason, is_killed=is_killed)
        if is_killed:
            # Whatever kills workers (a lack of memory) may pass.
            self._drop(name)
            self._postpone(name, None)
        pause = self._waiting[name].due - time.monotonic() if is_killed else 0.0
        return NextTry(pause, is_poison=self._suspects.verdict(name) is not None)

    def tries(self, name: str) -> int:
        """Returns how often a waiting file has been tried."""
        return self._waiting[name].tries if name in self._waiting else 0

    def only_stuck(self, seconds: float) -> bool:
        """Returns whether only files are left that have waited for longer than this."""
        now = time.monotonic()
        idle = not (self._fresh or self._ready or self._held or self._flying)
        return idle and all(now - waiting.since > seconds for waiting in self._waiting.values())

    def _enqueue(self, name: str) -> None:
        (self._held if name in self._apart else self._ready)[name] = None

    def _take_held(self, size_of: Callable[[str], int | None]) -> list[str]:
        """One that is there, if none is in flight."""
        if self._apart.keys() & self._flying.keys():
            return []
        for name in list(self._held):
            self._drop(name)
            if size_of(name) is not None:
                return [name]
        return []

    def _take(self, share: int, size_of: Callable[[str], int | None]) -> list[str]:
        limit = min(BATCH_FILES, -(-(len(self._fresh) + len(self._ready)) // share))
        names: list[str] = []
        left = BATCH_BYTES
        for name in self._queued(limit):
            size = size_of(name)
            if size is None:
                self._drop(name)
            elif not names or (left >= size and name not in self._alone):
                names.append(name)
                self._drop(name)
                left -= size
            if left <= 0 or name in self._alone:
                break
        return names

    def _queued(self, limit: int) -> Iterator[str]:
        """Half of a batch is for fresh files, so that a steady stream of them never starves the others."""
        fresh = list(_first(self._fresh, max(1, limit // 2) if self._ready else limit))
        yield from fresh
        yield from list(_first(self._ready, limit - len(fresh)))

    def _drop(self, name: str) -> None:
        self._fresh.pop(name, None)
        self._ready.pop(name, None)
        self._held.pop(name, None)

    def _work(self, name: str) -> FileTask:
        waiting = self._waiting.get(name)
        if waiting is None:
            return FileTask(name, poison_reason=self._suspects.verdict(name))
        stable = time.monotonic() - waiting.since >= self._settle_seconds
        return FileTask(
            name,
            stable=waiting.identity if stable else None,
            poison_reason=self._suspects.verdict(name),
            undisposed=waiting.undisposed,
            quiet=waiting.identity if time.monotonic() >= waiting.since + self._quiet_seconds else None,
        )

    def _postpone(self, name: str, identity: Identity | None, *, must_be_quiet: bool = False) -> None:
        """must_be_quiet: it is not read before it has been so."""
        now = time.monotonic()
        known = self._waiting.get(name)
        is_same = operator.eq if must_be_quiet else _is_same
        if known is None or not is_same(known.identity, identity):
            known = self._waiting[name] = _Waiting(identity, now)
        known.identity = identity
        crowd = len(self._waiting) / _RETRIES_A_SECOND
        # Rounded up: a crowd is tried batch by batch, not one by one.
        known.due = now + known.delay if known.delay > crowd else math.ceil(now + crowd)
        settled_at = known.since + self._settle_seconds
        if now < settled_at < known.due:
            known.due = settled_at
        quiet_at = known.since + self._quiet_seconds
        if must_be_quiet and now < quiet_at:  # however many wait: none is read before
            known.due = quiet_at
        known.delay = min(known.delay * 2, self._longest_delay)
        known.tries += 1
        heapq.heappush(self._due, (known.due, name))

    def _wake_due(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due, name = heapq.heappop(self._due)
            waiting = self._waiting.get(name)
            if waiting and waiting.due == due and name not in self._flying:
                self._enqueue(name)

    def _forget(self, name: str) -> None:
        self._waiting.pop(name, None)
        self._alone.pop(name, None)
        self._apart.pop(name, None)
        self._suspects.forget([name])


def _first(names: Iterable[str], count: int) -> Iterator[str]:
    return (name for name, _ in zip(names, range(count), strict=False))


def _is_same(one: Identity | None, other: Identity | None) -> bool:
    """A try to set it aside that fails moves it there and back."""
    return one == other or (one is not None and other is not None and one.same_content_as(other))
