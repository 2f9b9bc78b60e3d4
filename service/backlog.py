"""Tracks every known file: which is loaded next and with which others, and which has to wait."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from processing.batch import FileTask, Outcome
from processing.source import MAX_SHARED_BYTES, Identity
from service.events import NextTry
from service.known_files import KnownFile, KnownFiles
from service.suspects import Suspects
from service.waiting import WaitingPolicy

#: A batch shares a transaction: so many files, or so many bytes, at most.
BATCH_FILES = 500
BATCH_BYTES = 8 * 1024 * 1024

#: The longest pause of a file that is suspected, or held back, in seconds.
_LONGEST_SUSPENSE = 60.0

#: Names that are enough to keep all workers busy for a while; of a large bucket no more are held.
_ENOUGH_READY = 10_000

#: Returns the size of a file, or None if there is no such file.
SizeOf = Callable[[str], int | None]


class Backlog:
    """The files that are not done, from the event or the scan that reported them to their final outcome.

    What may keep a worker for long, such as a suspect or a file that meets a lock, is apart from the others:
    only one of them is in flight at a time, alone.
    """

    def __init__(
        self,
        policy: WaitingPolicy,
        suspects: Suspects | None = None,
        clock: Callable[[], float] = time.monotonic,
        batch_files: int = BATCH_FILES,
    ) -> None:
        self._batch_files = batch_files
        self._policy = policy
        self._suspects = suspects or Suspects()
        self._clock = clock
        self._files = KnownFiles()
        self._done: dict[str, float] | None = None  # names and times, if a listing comes in parts

    def __len__(self) -> int:
        return len(self._files.by_name)

    # What is there --------------------------------------------------------------------------------

    def on_event(self, name: str) -> None:
        """Takes a file before those that have been ready for a while, so that it is not late."""
        file = self._files.by_name.get(name)
        if file is None:
            self._files.add(name, "fresh")
        elif file.phase == "in flight":
            file.heard_again = True
        elif not file.is_apart:  # else it keeps its place, and its pause goes on
            self._files.move(file, "fresh")

    def on_scan(self, names: Iterable[str]) -> None:
        """Makes ready what was not known."""
        for name in names:
            if name not in self._files.by_name:
                self._files.add(name, "ready")

    def on_page(self, found: Mapping[str, Identity], began: float) -> None:
        """Makes ready what was not known of a part of a listing, which tells the identities, too.

        Not what was done since that began: it is gone by now, or is found by the next one. What has another
        identity while it is in flight is tried once more behind that.
        """
        done, self._done = self._done or {}, {}
        for name, identity in found.items():
            file = self._files.by_name.get(name)
            if file is None and done.get(name, -math.inf) < began:
                self._files.add(name, "ready").listed = identity
            elif file is not None and file.listed != identity:
                file.heard_again = file.heard_again or file.listed is not None  # of use only in flight
                file.listed = identity

    def has_room(self) -> bool:
        """Returns whether more names are of use now."""
        return len(self._files.queues["ready"]) < _ENOUGH_READY

    def keep_only(self, names: Iterable[str]) -> None:
        """Forgets what a scan did not find, because somebody else took it; not what is in flight."""
        self.keep_where(set(names).__contains__)

    def keep_where(self, is_kept: Callable[[str], bool]) -> None:
        """Forgets what is no longer to be loaded from here; not what is in flight."""
        for file in [file for file in self._files.by_name.values() if not is_kept(file.name)]:
            if file.phase != "in flight":
                self._forget(file)

    def sizes(self) -> tuple[int, int, int]:
        """Returns how many files may be loaded now, how many wait, and how many are in flight."""
        queues = self._files.queues
        in_flight, waiting = len(queues["in flight"]), len(queues["waiting"])
        return len(self) - in_flight - waiting, waiting, in_flight

    def next_due(self) -> float:
        """Returns when the next waiting file is to be tried again, on the monotonic clock."""
        return self._files.next_due()

    def only_stuck(self, seconds: float) -> bool:
        """Returns whether only files are left that wait though they were tried after waiting for so long."""
        waiting = self._files.queues["waiting"]
        is_idle = len(waiting) == len(self._files.by_name)
        return is_idle and all(file.tried_at - file.since >= seconds for file in waiting.values())

    # What is loaded next --------------------------------------------------------------------------

    def batch(self, share: int, size_of: SizeOf, *, others_first: bool = False) -> list[FileTask]:
        """Puts in flight the next files to load together, an equal share of what is there.

        A held file comes first, if none is in flight, or last: where it would get the only worker.
        """
        now = self._clock()
        for file in self._files.take_due(now):
            self._enqueue(file)
        files = [] if others_first else self._next_held(size_of)
        files = files or self._next_others(share, size_of) or self._next_held(size_of)
        for file in files:
            file.heard_again, file.tried_at = False, now
            self._files.move(file, "in flight")
        return [self._policy.task(file, now, self._suspects.verdict(file.name)) for file in files]

    def _next_held(self, size_of: SizeOf) -> list[KnownFile]:
        held = self._files.queues["held"]
        if held and not any(file.is_apart for file in self._files.queues["in flight"].values()):
            while held:
                file = next(iter(held.values()))
                if size_of(file.name) is not None:
                    return [file]
                self._forget(file)
        return []

    def _next_others(self, share: int, size_of: SizeOf) -> list[KnownFile]:
        fresh, ready = self._files.queues["fresh"], self._files.queues["ready"]
        while fresh or ready:
            limit = min(self._batch_files, -(-(len(fresh) + len(ready)) // share))
            # Half of a batch is for fresh files, so that a steady stream of them never starves the others.
            queued = list(islice(fresh.values(), max(1, limit // 2) if ready else limit))
            queued += islice(ready.values(), limit - len(queued))
            if files := self._fitting(queued, size_of):
                return files
        return []

    def _fitting(self, queued: list[KnownFile], size_of: SizeOf) -> list[KnownFile]:
        """Returns the files that fit into one batch; forgets those that are gone."""
        files: list[KnownFile] = []
        left = BATCH_BYTES
        for file in queued:
            size = size_of(file.name) if file.listed is None else file.listed.size
            if size is None:
                self._forget(file)
                continue
            # Among others a large file would be read only to find that it has to be alone.
            is_alone = file.is_alone or size > MAX_SHARED_BYTES
            if not files or (left >= size and not is_alone):
                files.append(file)
                left -= BATCH_BYTES if is_alone else size
            if left <= 0:
                break
        return files

    # What came back -------------------------------------------------------------------------------

    def record_outcome(self, outcome: Outcome) -> int:
        """Records the outcome of a file in flight; returns how often it was tried if it waits now."""
        file = self._files.by_name[outcome.name]
        heard_again, tries = file.heard_again, 0
        if outcome.state == "contended":
            file.is_apart = True
            self._suspend(file, outcome.seconds, self._policy.longest_delay)
            tries = file.tries
        elif outcome.state == "waiting" or outcome.undisposed is not None:
            unread = outcome.hides_writers and outcome.undisposed is None
            self._postpone(file, outcome.identity, must_be_quiet=unread)
            file.undisposed = outcome.undisposed
            tries = file.tries
        else:
            self._forget(file)
            if outcome.state == "retry_alone":
                self._files.add(file.name, "ready").is_alone = True
        if heard_again:
            self.on_event(outcome.name)
        return tries

    def requeue(self, batch: Iterable[FileTask]) -> None:
        """Puts back a batch that was not loaded, through no fault of its files."""
        for task in batch:
            self._enqueue(self._files.by_name[task.name])

    def note_loaded(self) -> None:
        """Counts a batch that was committed: evidence that the database was well."""
        self._suspects.note_loaded()

    def suspect(self, batch: list[FileTask], reason: str, seconds: float) -> NextTry:
        """Records that a batch failed after seconds though the database answers.

        Its files are tried alone, and are poison if that fails repeatedly.
        """
        for task in batch:
            self._files.by_name[task.name].is_apart = True
        self.requeue(batch)
        if len(batch) > 1:
            return NextTry()
        name = batch[0].name
        self._suspects.count_strike(name, reason)
        if self._suspects.verdict(name):
            return NextTry(is_poison=True)
        file = self._files.by_name[name]
        # The first pause is short: mostly the cause is over, such as a server that was silent for a while.
        return NextTry(self._suspend(file, seconds if file.tries else 0.0, _LONGEST_SUSPENSE))

    def record_setback(self, batch: list[FileTask], seconds: float) -> None:
        """Records a setback, which a file may have caused but is never failed for.

        If it repeats, the files are tried one by one; one that meets it alone while others load is held back.
        """
        self.requeue(batch)
        is_alone = len(batch) == 1
        for file in [self._files.by_name[task.name] for task in batch]:
            if not self._suspects.count_setback(file.name, is_alone=is_alone):
                continue
            if is_alone:
                file.is_apart = True
                self._suspend(file, seconds, _LONGEST_SUSPENSE)
            else:
                self._suspects.forget([file.name])
                file.is_alone = True

    def record_crash(self, batch: list[FileTask], reason: str, *, is_killed: bool) -> NextTry:
        """Records that the worker died: the files are tried alone, and are poison if that goes on."""
        self.requeue(batch)
        files = [self._files.by_name[task.name] for task in batch]
        for file in files:
            file.is_alone = True
        if len(files) > 1:
            return NextTry()
        (file,) = files
        self._suspects.count_crash(file.name, reason, is_killed=is_killed)
        # Whatever kills workers (a lack of memory) may pass.
        pause = self._postpone(file, None) if is_killed else 0.0
        return NextTry(pause, is_poison=self._suspects.verdict(file.name) is not None)

    # Steps that are shared ------------------------------------------------------------------------

    def _enqueue(self, file: KnownFile) -> None:
        self._files.move(file, "held" if file.is_apart else "ready")

    def _postpone(self, file: KnownFile, identity: Identity | None, *, must_be_quiet: bool = False) -> float:
        now, crowd = self._clock(), self._files.crowd
        due = self._policy.postpone(file, now, identity, crowd, must_be_quiet=must_be_quiet)
        self._files.wait(file, due)
        return due - now

    def _suspend(self, file: KnownFile, seconds: float, longest: float) -> float:
        """Takes a file out of the queues for a pause; returns its length."""
        now = self._clock()
        pause = self._policy.suspend(file, now, seconds, longest)
        self._files.wait(file, now + pause)
        return pause

    def _forget(self, file: KnownFile) -> None:
        self._files.forget(file)
        if self._done is not None:
            self._done[file.name] = self._clock()
        self._suspects.forget([file.name])
