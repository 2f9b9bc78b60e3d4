"""One invocation: loads the objects that arrived one after another, and gives up in time."""

import gc
import time
from collections.abc import Sequence
from threading import Thread

from jobs.deadline import OutOfTime
from jobs.object_loading import ObjectLoading
from jobs.s3_events import Arrival
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
from service.events import FileDuplicate, FileFailed, FileLoaded, NothingToLoad, ObjectsReturned, Publish
from service.fault import describe

#: How long giving up may take. What does not end in this time waits for the bucket, outside of a transaction.
_GIVE_UP_SECONDS = 0.8

_INTERRUPT_SECONDS = 0.1

#: Errors that concern the objects behind this one, too.
_OF_ALL = (OutOfTime, DatabaseUnavailable, SourceUnavailable, Misconfigured)

_ENDS = {"loaded": FileLoaded, "duplicate": FileDuplicate, "failed": FileFailed}


class Invocation:
    """The objects of one invocation; what is in `left` was not loaded, or not disposed of."""

    def __init__(self, arrivals: Sequence[Arrival], publish: Publish) -> None:
        self.left = list(arrivals)
        self.reason = ""
        self._waiting = list(arrivals)
        self._publish = publish

    def run(self, loading: ObjectLoading, ends_at: float) -> bool:
        """Loads them until all are done or that time has come; returns whether the loading can go on later.

        In a thread, for a wait for the bucket can't be interrupted.
        """
        loading.deadline.set(ends_at)
        thread = Thread(target=self._load_all, args=(loading,), name="loading", daemon=True)
        thread.start()
        thread.join(max(0.0, ends_at - time.monotonic()))
        while thread.is_alive() and time.monotonic() < ends_at + _GIVE_UP_SECONDS:
            # Again, for between two statements there is nothing to interrupt.
            loading.interrupt(_INTERRUPT_SECONDS)
            thread.join(_INTERRUPT_SECONDS)
        if thread.is_alive():
            self.give_up("the bucket did not answer before the time of the invocation was used up")
        return not thread.is_alive()

    def give_up(self, reason: str) -> None:
        """Leaves all that was not tried yet."""
        self.reason = reason
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._publish(ObjectsReturned([arrival.key for arrival in waiting], reason))

    def _load_all(self, loading: ObjectLoading) -> None:
        try:
            loading.prepare()
            while self._waiting:
                self._load(loading, self._waiting[0])
                del self._waiting[:1]
        except _OF_ALL as error:
            self.give_up(str(error))
        except Exception as error:  # noqa: BLE001  # whatever it is, nothing was loaded
            self.give_up(describe(error))

    def _load(self, loading: ObjectLoading, arrival: Arrival) -> None:
        """Loads one object; raises what concerns the others, too."""
        name = loading.name_of(arrival)
        if name is None:
            self._publish(NothingToLoad(f"{printable(arrival.key)} is none of the objects to be loaded"))
            self.left.remove(arrival)
            return
        try:
            outcome = loading.load(name)
        except (Setback, TransactionFailed, TryAgain) as error:
            loading.deadline.check()  # else this is why
            self._return(arrival, str(error))
        except _OF_ALL:
            raise
        except Exception as error:  # noqa: BLE001  # others may be loaded all the same
            gc.collect()  # cycles of what failed hold the rows of a chunk
            self._return(arrival, describe(error))
        else:
            self._note(arrival, outcome)

    def _note(self, arrival: Arrival, outcome: Outcome) -> None:
        if outcome.state in _ENDS:
            self._publish(_ENDS[outcome.state](outcome))
        elif outcome.state == "gone":
            self._publish(NothingToLoad(f"{printable(arrival.key)} is gone"))
        if outcome.undisposed is not None or outcome.state not in (*_ENDS, "gone"):
            self._return(arrival, outcome.reason)
        else:
            self.left.remove(arrival)

    def _return(self, arrival: Arrival, reason: str) -> None:
        self.reason = reason
        self._publish(ObjectsReturned([arrival.key], reason))
