"""Worker processes that load batches; a dead one costs its batch one more try."""

import ctypes
import gc
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import contextmanager
from multiprocessing import active_children, get_context, resource_tracker
from multiprocessing.synchronize import Semaphore
from typing import cast

from pebble import ProcessExpired, ProcessPool

from processing.errors import DatabaseUnavailable, Misconfigured
from processing.processor import Outcome, Processor, Work

#: Makes the processor of a worker, in that worker; must be picklable.
Start = Callable[[], Processor]

Results = Future[list[Outcome]]

#: How long a stop waits for workers that are still starting, all together.
_BEGIN_SECONDS = 1.5


class WorkerDied(Exception):
    """The process that was loading the batch has ended, or failed in an unforeseen way."""


class BatchLost(Exception):
    """The pool has ended with the batch in hand, for a reason that lies elsewhere."""


class Pool:
    """Loads batches in a fixed number of processes."""

    def __init__(self, workers: int, start: Start) -> None:
        self.size = workers
        self._start = start
        self._unfinished: set[Results] = set()
        self._pool = self._make()

    def load(self, batch: Sequence[Work]) -> Results:
        """The outcomes to come; the future raises WorkerDied, or what Processor.load() raises."""
        try:
            return self._schedule(batch)
        except RuntimeError:  # pebble gives up when a process ends that was idle
            self.stop(0)
            self._pool = self._make()
            return self._schedule(batch)

    def stop(self, seconds: float) -> None:
        """Lets the workers finish what they have in hand, for so long; what is not done rolls back."""
        self._wait_for_beginners()
        self._pool.close()  # type: ignore[no-untyped-call]
        try:
            self._pool.join(seconds)
        except TimeoutError:
            self._pool.stop()  # type: ignore[no-untyped-call]
            for results in list(self._unfinished):
                results.cancel()  # pebble would leave some for ever undone
            for worker in active_children():
                worker.kill()
            self._pool.join()

    def _wait_for_beginners(self) -> None:
        """A worker that is stopped while it starts would complain of what it no longer finds."""
        deadline = time.monotonic() + _BEGIN_SECONDS
        for _ in range(self.size):
            self._begun.acquire(timeout=max(0.0, deadline - time.monotonic()))

    def _schedule(self, batch: Sequence[Work]) -> Results:
        results = cast(Results, self._pool.schedule(_load, args=(list(batch),)))
        self._unfinished.add(results)
        results.add_done_callback(self._unfinished.discard)
        return results

    def _make(self) -> ProcessPool:
        # spawn: a fork would copy the locks of the observer's threads in whatever state they are.
        context = get_context("spawn")
        self._begun = context.Semaphore(0)
        pool = ProcessPool(
            max_workers=self.size,
            initializer=_begin,
            initargs=(self._start, self._begun),
            context=context,
        )
        with _deaf_to_ctrl_c():
            pool.schedule(int)  # starts the processes before there is work
        return pool


def outcomes(results: Results) -> list[Outcome]:
    """The outcomes of a batch that is done."""
    try:
        return results.result(timeout=0)
    except (DatabaseUnavailable, Misconfigured):
        raise
    except ProcessExpired as error:
        raise WorkerDied(f"the worker process ended: {error}") from None
    except (BrokenExecutor, CancelledError) as error:
        raise BatchLost(f"the worker pool ended: {error}") from None
    except Exception as error:  # noqa: BLE001
        # A fault of ours: the batch must not take the daemon with it. Its text may quote the file.
        raise WorkerDied(f"{type(error).__name__} {_place(error)}") from None


def _place(error: Exception) -> str:
    """Where a worker raised an error, of which pebble brings the traceback along as text."""
    lines = str(getattr(error, "traceback", "")).splitlines()
    return next((line.strip() for line in reversed(lines) if line.lstrip().startswith("File ")), "")


class _Worker:
    """What a worker process keeps between batches."""

    start: Start
    processor: Processor | None = None


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes and threads that are started meanwhile are so for ever: the daemon decides when to stop."""
    resource_tracker.ensure_running()  # started later, it would undo this
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _begin(start: Start, begun: Semaphore) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # systemd, say, sends it to all; the daemon decides
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # a lease that is broken in the instant it is tried
    _end_with_parent()
    _Worker.start = staticmethod(start)
    # What lives long lives as long as the process; what a chunk holds dies with it, and has no cycles.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    # The thread that sends waits for the lock of the interpreter several times a chunk, 5 ms each by default.
    sys.setswitchinterval(0.001)
    begun.release()


def _load(batch: list[Work]) -> list[Outcome]:
    if _Worker.processor is None:
        _Worker.processor = _Worker.start()
    try:
        return _Worker.processor.load(batch)
    except Exception:
        # Cycles of what failed before hold the rows of a chunk, and by themselves are hardly ever collected.
        gc.collect()
        raise


def _end_with_parent() -> None:
    """A daemon killed with -9 takes its workers along: their transactions roll back."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
