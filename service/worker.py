"""A worker process, and the daemon's end of the pipe to it, which ends when the process does."""

import ctypes
import gc
import os
import signal
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from threading import Thread
from types import ModuleType
from typing import TYPE_CHECKING, Any

from processing.batch import FileTask, Outcome
from processing.errors import (
    BatchLost,
    DatabaseUnavailable,
    Misconfigured,
    SourceUnavailable,
    WorkerDied,
)
from processing.loader import Loader
from service.fault import describe
from service.heartbeat import COUNTERS, Heartbeat, SharedCounters
from service.interpreter import suit_loads

#: Makes the processor of a worker, in that worker; must be picklable.
Start = Callable[[Heartbeat], Loader]

Results = Future[list[Outcome]]

if TYPE_CHECKING:
    _Pipe = Connection[Any, Any]

_SPAWN = get_context("spawn")  # a fork would copy the locks of other threads in whatever state


class Worker:
    """The daemon's side. To be used by one thread, that which made it: with that thread it ends.

    It shares nothing with other workers, no queue and no lock, so that its death harms no other.
    """

    def __init__(self, start: Start) -> None:
        """Raises OSError if the system has no process or no descriptor for it."""
        self.counters: SharedCounters = _SPAWN.RawArray("q", COUNTERS)
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, start, self.counters))
        with theirs, _deaf_to_terminal(), _without_program():
            _leave_a_lost_directory()
            self._process.start()
        weakref.finalize(self, self._process.kill)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def load(self, batch: Sequence[FileTask]) -> Results:
        """Returns a future: what Loader.load() returns or raises; WorkerDied for a bug, EOFError at an end.

        Raises RuntimeError if the system has no thread for that.
        """
        results = Results()
        Thread(target=_exchange, args=(self._pipe, list(batch), results), daemon=True).start()
        return results

    def kill(self) -> None:
        self._process.kill()

    def dismiss(self) -> None:
        """Lets it end; it must have no batch in flight."""
        self._pipe.close()

    def exit_code(self, seconds: float | None = None) -> int | None:
        """Waits for its end; the negative number of the signal if that was the cause."""
        self._process.join(seconds)
        return self._process.exitcode


def _exchange(pipe: "_Pipe", batch: list[FileTask], results: Results) -> None:
    try:
        pipe.send(batch)
        answer = pipe.recv()
    except Exception as error:  # noqa: BLE001  # whoever asks for the results has to know
        results.set_exception(error)
    else:
        if isinstance(answer, Exception):
            results.set_exception(answer)
        else:
            results.set_result(answer)


@contextmanager
def _deaf_to_terminal() -> Iterator[None]:
    """A process that is started meanwhile is so for ever: the daemon decides when to stop."""
    resource_tracker.ensure_running()  # started later, it would undo this
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _leave_a_lost_directory() -> None:
    """Goes elsewhere if the current directory was removed or can't be read: a process is started in it."""
    try:
        os.getcwd()
    except OSError:
        os.chdir("/")


@contextmanager
def _without_program() -> Iterator[None]:
    """A process that is started meanwhile does not import the program again: with what reads its settings
    that would be 22 MB and two thirds of its start."""
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


# In the worker ------------------------------------------------------------------------------------


def _serve(pipe: "_Pipe", start: Start, counters: SharedCounters) -> None:
    _prepare()
    loader = BatchRunner(start, Heartbeat(counters))
    with suppress(EOFError, ConnectionError):  # the daemon has no more for it, or is gone
        while True:
            while not pipe.poll(loader.tidy()):
                pass
            pipe.send(loader.load(pipe.recv()))
    loader.close()


class BatchRunner:
    """Makes the processor for the first batch, so that a failure to do so is the answer."""

    def __init__(self, start: Start, heartbeat: Heartbeat) -> None:
        self._start = start
        self._heartbeat = heartbeat
        self._loader: Loader | None = None

    def load(self, batch: list[FileTask]) -> list[Outcome] | Exception:
        self._heartbeat.begin()
        try:
            self._loader = self._loader or self._start(self._heartbeat)
            return self._loader.load(batch)
        except (DatabaseUnavailable, SourceUnavailable, Misconfigured) as error:
            failure: Exception = error
        except RuntimeError as error:
            # Of the system's lack of threads no file is guilty.
            is_lack = "can't start new thread" in str(error)
            failure = BatchLost(f"a worker has no thread: {error}") if is_lack else _fault(error)
        except Exception as error:  # noqa: BLE001
            failure = _fault(error)
        # Cycles of what failed before hold the rows of a chunk, and by themselves are hardly ever collected.
        gc.collect()
        return failure

    def tidy(self) -> float | None:
        return self._loader.tidy() if self._loader else None

    def close(self) -> None:
        if self._loader:
            self._loader.close()


def _fault(error: Exception) -> Exception:
    """Describes a fault of ours, which must not take the daemon with it."""
    return WorkerDied(f"the worker process failed: {describe(error)}")


def _prepare() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # systemd, say, sends it to all; the daemon decides
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # a lease that is broken in the instant it is tried
    _end_with_parent()
    suit_loads()


def _end_with_parent() -> None:
    """A daemon killed with -9 takes its workers along: their transactions roll back."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
