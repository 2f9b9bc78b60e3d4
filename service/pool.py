"""Worker processes that load batches; one that dies or hangs costs its batch one more try."""

import signal
import time
from collections.abc import Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass

from processing.batch import FileTask, Outcome
from processing.errors import (
    BatchLost,
    DatabaseUnavailable,
    Misconfigured,
    SourceUnavailable,
    WorkerDied,
    WorkerKilled,
)
from service.heartbeat import StallDetector
from service.worker import Results, Start, Worker

#: How long a stop waits for workers without work to end by themselves, all together, before it kills them.
_END_SECONDS = 1.5


@dataclass
class _Flight:
    """A batch in flight; verdict is the error that it ends with if its worker had to be killed."""

    worker: Worker
    watch: StallDetector
    verdict: Exception | None = None


class Pool:
    """Loads batches in a fixed number of processes, as many at once as there are of them."""

    def __init__(self, workers: int, start: Start, closing_seconds: float = 0.0) -> None:
        """Starts nothing. A worker without a batch may take closing_seconds to end its work."""
        self.size = workers
        self._end_seconds = _END_SECONDS + closing_seconds
        self._start = start
        self._workers: list[Worker] = []
        self._flights: dict[Results, _Flight] = {}

    def start(self) -> None:
        """Starts the workers ahead of their first batch; load() starts those that are missing."""
        with suppress(OSError):  # load() will meet it again, and raises
            self._workers.extend(Worker(self._start) for _ in range(self.size))

    def load(self, batch: Sequence[FileTask]) -> Results:
        """Sends a batch to a free worker; raises BatchLost if none can be started now."""
        try:
            worker = self._free_worker()
            watch = StallDetector(worker.counters)
            results = worker.load(batch)
        except (RuntimeError, OSError) as error:
            raise BatchLost(f"no worker can be started: {error}") from None
        self._flights[results] = _Flight(worker, watch)
        return results

    def outcomes(self, results: Results) -> list[Outcome]:
        """Returns the outcomes of a batch; raises WorkerDied, BatchLost, or what Loader.load() raises."""
        flight = self._flights.pop(results)
        try:
            return results.result(timeout=0)
        except (DatabaseUnavailable, SourceUnavailable, Misconfigured, WorkerDied, BatchLost):
            raise
        except (EOFError, ConnectionError):
            raise flight.verdict or _death(flight) from None
        except Exception as error:  # noqa: BLE001  # such as of a worker started from a newer version
            raise WorkerDied(f"the worker's answer can't be read: {type(error).__name__}") from None

    def alive(self) -> int:
        """Returns the number of workers that live."""
        return sum(worker.is_alive() for worker in self._workers)

    def progress(self, results: Results) -> tuple[int, int]:
        """Returns the bytes and records of a large file that the worker of a batch in flight has read."""
        return self._flights[results].watch.progress

    def check(self) -> None:
        """Kills workers that hang; to be called every CHECK_SECONDS while batches are in flight."""
        for flight in self._flights.values():
            complaint = flight.watch.complaint()
            if complaint is not None:
                flight.verdict = complaint
                flight.worker.kill()

    def stop(self, seconds: float) -> None:
        """Gives the workers this time to finish their batches; the others roll back."""
        wait(self._flights, seconds)
        for results, flight in self._flights.items():
            if not results.done():
                flight.verdict = BatchLost("the workers were asked to stop")
                flight.worker.kill()
        wait(self._flights, _END_SECONDS)
        self._end_workers()

    def _free_worker(self) -> Worker:
        busy = {flight.worker for flight in self._flights.values()}
        self._workers = [worker for worker in self._workers if worker in busy or worker.is_alive()]
        while len(self._workers) < self.size:
            self._workers.append(Worker(self._start))
        return next(worker for worker in self._workers if worker not in busy)

    def _end_workers(self) -> None:
        deadline = time.monotonic() + self._end_seconds
        for worker in self._workers:
            worker.dismiss()
        for worker in self._workers:
            if worker.exit_code(max(0.0, deadline - time.monotonic())) is None:
                worker.kill()
                worker.exit_code()
        self._workers.clear()


def _death(flight: _Flight) -> Exception:
    code = flight.worker.exit_code()
    if not flight.watch.is_taken:
        return BatchLost(f"the worker process {_end(code)} before it took the batch")
    if code == -signal.SIGKILL:
        return WorkerKilled("the worker process was killed (SIGKILL: for want of memory, or by somebody)")
    return WorkerDied(f"the worker process {_end(code)}")


def _end(code: int | None) -> str:
    if code is not None and code < 0:
        return f"ended by signal {-code} ({signal.strsignal(-code)})"
    return f"ended with exit code {code}"
