"""One invocation: loads the objects that have arrived one after another, and gives up in time."""

import gc
import time
from collections.abc import Sequence
from threading import Thread

from jobs.deadline import OutOfTime
from jobs.object_loading import ObjectLoading
from jobs.s3_events import Item
from processing.batch import Outcome
from processing.errors import (
    DatabaseUnavailable,
    Misconfigured,
    Setback,
    SourceUnavailable,
    TransactionFailed,
    TryAgain,
)
from processing.printable import printable
from processing.source import MAX_SHARED_BYTES
from service.events import FileDuplicate, FileFailed, FileLoaded, NothingToLoad, ObjectsReturned, Publish
from service.fault import describe

#: How long giving up may take. What does not end in this time waits for the bucket, outside of a transaction.
_GIVE_UP_SECONDS = 1.0

_INTERRUPT_SECONDS = 0.1

#: Small objects that share a transaction, and are held in memory meanwhile.
_MOST_TOGETHER = 50

#: Errors that concern the objects behind this one, too.
_OF_ALL = (OutOfTime, DatabaseUnavailable, SourceUnavailable, Misconfigured)

_ENDS = {"loaded": FileLoaded, "duplicate": FileDuplicate, "failed": FileFailed}


class Invocation:
    """The objects of one invocation; what is in `left` was not loaded, or not disposed of."""

    def __init__(self, items: Sequence[Item], publish: Publish) -> None:
        self.left = list(items)
        self.reason = ""
        self._waiting = list(items)
        self._publish = publish

    def run(self, loading: ObjectLoading, ends_at: float) -> bool:
        """Loads them until all are done or that time has come; returns whether the loading can go on later.

        In a thread, for a wait for the bucket can't be interrupted.
        """
        loading.deadline.set(ends_at)
        thread = Thread(target=self._load_all, args=(loading,), name="loading", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self.give_up(f"the system has no thread: {error}")
            return True
        thread.join(max(0.0, ends_at - time.monotonic()))
        while thread.is_alive() and time.monotonic() < ends_at + _GIVE_UP_SECONDS:
            # Again, for between two statements there is nothing to interrupt.
            loading.interrupt(_INTERRUPT_SECONDS)
            thread.join(_INTERRUPT_SECONDS)
        if thread.is_alive():
            self.give_up("no answer came before the time of the invocation was used up")
        return not thread.is_alive()

    def give_up(self, reason: str) -> None:
        """Leaves all that was not tried yet."""
        self.reason = reason
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._publish(ObjectsReturned([item.arrival.key for item in waiting], reason))

    def _load_all(self, loading: ObjectLoading) -> None:
        try:
            loading.prepare()
            self._pass_over(loading)
            small = [item for item in self._waiting if item.arrival.size <= MAX_SHARED_BYTES]
            for start in range(0, len(small), _MOST_TOGETHER):
                self._load_together(loading, small[start : start + _MOST_TOGETHER])
            while self._waiting:
                self._load_alone(loading, self._waiting[0])
        except _OF_ALL as error:
            self.give_up(str(error))
        except Exception as error:  # noqa: BLE001  # whatever it is, nothing was loaded
            self.give_up(describe(error))

    def _pass_over(self, loading: ObjectLoading) -> None:
        """Drops what is none of the objects to be loaded, such as those below failed/."""
        for item in list(self._waiting):
            if not loading.wants(item.arrival):
                key = printable(item.arrival.key)
                self._publish(NothingToLoad(f"{key} is none of the objects to be loaded"))
                self._waiting.remove(item)
                self.left.remove(item)

    def _load_together(self, loading: ObjectLoading, items: Sequence[Item]) -> None:
        """Loads small objects in one transaction; if that fails, one of them may be why: all stay to wait."""
        try:
            outcomes = loading.load([item.arrival for item in items])
        except (Setback, TransactionFailed, TryAgain):
            return
        except _OF_ALL:
            raise
        except Exception:  # noqa: BLE001  # the one that causes it again is named
            gc.collect()  # cycles of what failed hold the rows of a chunk
            return
        for item, outcome in zip(items, outcomes, strict=True):
            if outcome.state != "retry_alone":
                self._note(item, outcome)

    def _load_alone(self, loading: ObjectLoading, item: Item) -> None:
        """Loads one object; raises what concerns the others, too."""
        try:
            (outcome,) = loading.load([item.arrival])
        except (Setback, TransactionFailed, TryAgain) as error:
            loading.deadline.check()  # else this is why
            self._return(item, str(error))
        except _OF_ALL:
            raise
        except Exception as error:  # noqa: BLE001  # others may be loaded all the same
            gc.collect()
            self._return(item, describe(error))
        else:
            self._note(item, outcome)

    def _note(self, item: Item, outcome: Outcome) -> None:
        self._waiting.remove(item)
        if outcome.state in _ENDS:
            self._publish(_ENDS[outcome.state](outcome))
        elif outcome.state == "gone":
            self._publish(NothingToLoad(f"{printable(item.arrival.key)} is gone"))
        if outcome.undisposed is not None or outcome.state not in (*_ENDS, "gone"):
            self._tell(item, outcome.reason)
        else:
            self.left.remove(item)

    def _return(self, item: Item, reason: str) -> None:
        self._waiting.remove(item)
        self._tell(item, reason)

    def _tell(self, item: Item, reason: str) -> None:
        self.reason = reason
        self._publish(ObjectsReturned([item.arrival.key], reason))
