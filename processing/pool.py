"""Worker processes that load batches; one that dies or hangs costs its batch one more try."""

import ctypes
import gc
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import contextmanager, suppress
from multiprocessing import active_children, get_context, resource_tracker
from multiprocessing.synchronize import Semaphore
from typing import cast

from pebble import ProcessExpired, ProcessPool

from processing.errors import DatabaseUnavailable, Misconfigured
from processing.processor import Outcome, Processor, Work
from processing.pulse import CELLS, BatchLost, Cells, Pulse, Watch, WorkerDied, WorkerKilled

#: Makes the processor of a worker, in that worker; must be picklable.
Start = Callable[[Pulse], Processor]

Results = Future[list[Outcome]]

#: How long a stop waits for workers that are still starting, all together.
_BEGIN_SECONDS = 1.5


class Pool:
    """Loads batches in a fixed number of processes, as many at once as there are of them."""

    def __init__(self, workers: int, start: Start) -> None:
        self.size = workers
        self._start = start
        self._context = get_context("spawn")  # a fork would copy the locks of other threads in whatever state
        self._cells: Cells = self._context.RawArray("q", workers * CELLS)
        self._watches: dict[Results, Watch] = {}
        self._verdicts: dict[Results, Exception] = {}
        self._pool: ProcessPool | None = None
        with suppress(RuntimeError, OSError):  # to load() it will happen again, and be told
            self._start_workers()

    def load(self, batch: Sequence[Work]) -> Results:
        """The outcomes to come; raises BatchLost if there are no workers, and can't be: then try later."""
        try:
            if self._pool is None:
                self._start_workers()
            return self._schedule(batch)
        except (RuntimeError, OSError) as error:
            self.stop(0)
            raise _lost(error) from None

    def outcomes(self, results: Results) -> list[Outcome]:
        """Those of a batch that is done; raises WorkerDied, BatchLost, or what Processor.load() raises."""
        verdict = self._verdicts.pop(results, None)
        try:
            return results.result(timeout=0)
        except (DatabaseUnavailable, Misconfigured):
            raise
        except ProcessExpired as error:
            raise verdict or _death(error.exitcode) from None
        except (BrokenExecutor, CancelledError) as error:
            raise verdict or _lost(error) from None
        except Exception as error:  # noqa: BLE001
            # A fault of ours: the batch must not take the daemon with it. Its text may quote the file.
            raise WorkerDied(f"the worker process failed: {type(error).__name__} {_place(error)}") from None

    def check(self) -> None:
        """Kills workers that hang; to be called every CHECK_SECONDS while there are batches."""
        for results, watch in list(self._watches.items()):
            complaint = watch.complaint()
            if complaint is not None:
                self._verdicts[results] = complaint
                self._kill(watch.pid)

    def stop(self, seconds: float) -> None:
        """Lets the workers finish what they have in hand, for so long; what is not done rolls back."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        self._wait_for_beginners()
        pool.close()  # type: ignore[no-untyped-call]
        try:
            pool.join(seconds)
        except TimeoutError:
            pool.stop()  # type: ignore[no-untyped-call]
            self._cancel_all()
            for worker in active_children():
                worker.kill()
            pool.join()
        self._cancel_all()

    def _kill(self, pid: int) -> None:
        """If that is no worker any more, or none yet, pebble would wait for it for ever."""
        workers = {worker.pid: worker for worker in active_children()}
        if pid in workers:
            workers[pid].kill()
        else:
            self.stop(0)

    def _cancel_all(self) -> None:
        """pebble would leave some for ever undone."""
        for results in list(self._watches):
            results.cancel()

    def _wait_for_beginners(self) -> None:
        """A worker that is stopped while it starts would complain of what it no longer finds."""
        deadline = time.monotonic() + _BEGIN_SECONDS
        for _ in range(self.size):
            self._begun.acquire(timeout=max(0.0, deadline - time.monotonic()))

    def _schedule(self, batch: Sequence[Work]) -> Results:
        assert self._pool is not None
        slot = min(set(range(self.size)) - {watch.slot for watch in self._watches.values()})
        watch = Watch(self._cells, slot)
        results = cast(Results, self._pool.schedule(_load, args=(slot, list(batch))))
        self._watches[results] = watch
        results.add_done_callback(self._watches.pop)
        return results

    def _start_workers(self) -> None:
        self._begun = self._context.Semaphore(0)
        self._pool = ProcessPool(
            max_workers=self.size,
            initializer=_begin,
            initargs=(self._start, self._begun, self._cells),
            context=self._context,
        )
        with _deaf_to_ctrl_c():
            self._pool.schedule(int)  # starts the processes before there is work


def _lost(error: BaseException) -> BatchLost:
    """pebble tells its reason as the cause of another error, or not at all."""
    reason = error.__cause__ or error
    return BatchLost(f"the worker pool ended: {str(reason) or type(reason).__name__}")


def _death(exit_code: int) -> WorkerDied:
    if exit_code == -signal.SIGKILL:
        return WorkerKilled("the worker process was killed (SIGKILL: for want of memory, or by somebody)")
    if exit_code < 0:
        return WorkerDied(f"the worker process ended by signal {-exit_code} ({signal.strsignal(-exit_code)})")
    return WorkerDied(f"the worker process ended with exit code {exit_code}")


def _place(error: Exception) -> str:
    """Where a worker raised an error, of which pebble brings the traceback along as text."""
    lines = str(getattr(error, "traceback", "")).splitlines()
    return next((line.strip() for line in reversed(lines) if line.lstrip().startswith("File ")), "")


class _Worker:
    """What a worker process keeps between batches."""

    start: Start
    pulse: Pulse
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


def _begin(start: Start, begun: Semaphore, cells: Cells) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # systemd, say, sends it to all; the daemon decides
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # a lease that is broken in the instant it is tried
    _end_with_parent()
    _Worker.start = staticmethod(start)
    _Worker.pulse = Pulse(cells)
    # What lives long lives as long as the process; what a chunk holds dies with it, and has no cycles.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    # The thread that sends waits for the lock of the interpreter several times a chunk, 5 ms each by default.
    sys.setswitchinterval(0.001)
    begun.release()


def _load(slot: int, batch: list[Work]) -> list[Outcome]:
    _Worker.pulse.begin(slot)
    if _Worker.processor is None:
        _Worker.processor = _Worker.start(_Worker.pulse)
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
