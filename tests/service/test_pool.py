"""Worker processes: what becomes of their batches, their errors, their deaths and of signals."""

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import psutil
import pytest

from processing.batch import FileTask, Outcome
from processing.errors import (
    BatchLost,
    DatabaseUnavailable,
    Misconfigured,
    TransactionFailed,
    TryAgain,
    WorkerDied,
    WorkerHung,
    WorkerKilled,
)
from processing.loader import Loader
from service import heartbeat as heartbeat
from service.heartbeat import Heartbeat
from service.pool import Pool
from service.worker import Results
from tests.support import ROOT, until, workers_of

ERRORS = {
    "unavailable": DatabaseUnavailable,
    "again": TryAgain,
    "misconfigured": Misconfigured,
    "fault": KeyError,
}


class Actor:
    """A processor that does what the names of its files say, "pid" by default."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat

    def load(self, batch: list[FileTask]) -> list[Outcome]:
        return [self._act(*work.name.split()) for work in batch]

    def tidy(self) -> None: ...

    def close(self) -> None: ...

    def _act(self, what: str, value: str = "") -> Outcome:
        if what in ERRORS:
            raise ERRORS[what]("because of secret rows" if what == "fault" else value)
        if what == "disk":
            raise OSError(errno.ENOSPC, "secret", "secret")
        if what == "riddle":
            return cast(Outcome, Riddle())
        if what == "cycle":
            self._leave_a_cycle(Path(value))
        if what == "exit":
            os._exit(int(value))
        if what == "crash":
            os.kill(os.getpid(), int(value))
        if what == "hang":
            Path(value).touch()
            signal.pause()
        if what == "wait":
            until(Path(value).exists)
        if what == "walk":
            until(lambda: self._walks_to(Path(value)))
        if what == "ask":
            with self._heartbeat.waiting():
                until(Path(value).exists)
        return Outcome(what, "loaded", str(os.getpid()))

    def _walks_to(self, path: Path) -> bool:
        self._heartbeat.beat()
        return path.exists()

    def _leave_a_cycle(self, collected: Path) -> None:
        """As an exception does whose traceback leads to what keeps it; it shows when it is collected."""
        rows: list[object] = [Collected(collected)]
        rows.append(rows)
        raise DatabaseUnavailable("in the middle of a chunk")


class Riddle:
    """What the other side can't make out, as if it were of another version."""

    def __reduce__(self) -> tuple[type[int], tuple[None]]:
        return int, (None,)


class Collected:
    """Makes a file when it is collected."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __del__(self) -> None:
        self._path.touch()


@dataclass(frozen=True)
class StartActor:
    def __call__(self, heartbeat: Heartbeat) -> Loader:
        return cast(Loader, Actor(heartbeat))


def fail_to_start(heartbeat: Heartbeat) -> Loader:
    raise DatabaseUnavailable("not yet")


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(2, StartActor())
    pool.start()
    yield pool
    pool.stop(0)
    assert workers() == []


@pytest.fixture
def pool_to_stop() -> Iterator[Pool]:
    """One that the test itself stops."""
    pool = Pool(2, StartActor())
    pool.start()
    yield pool
    assert workers() == []


def workers() -> list[psutil.Process]:
    return workers_of(psutil.Process())


def load(pool: Pool, *names: str) -> Results:
    return pool.load([FileTask(name) for name in names])


def done(pool: Pool, results: Results) -> list[Outcome]:
    until(results.done)
    return pool.outcomes(results)


def test_a_batch_comes_back_with_its_outcomes_in_order(pool: Pool) -> None:
    assert [(o.name, o.state) for o in done(pool, load(pool, "b", "a", "c"))] == [
        ("b", "loaded"),
        ("a", "loaded"),
        ("c", "loaded"),
    ]


def test_as_many_batches_as_there_are_workers_are_loaded_at_once(pool: Pool, tmp_path: Path) -> None:
    first = load(pool, f"wait {tmp_path / 'go'}")
    second = load(pool, "pid")
    others = done(pool, second)
    assert not first.done()
    (tmp_path / "go").touch()
    assert done(pool, first)[0].reason != others[0].reason


def test_the_workers_are_there_before_the_first_batch(pool: Pool) -> None:
    until(lambda: len(workers()) == 2)


@pytest.mark.parametrize(("name", "error"), [(n, e) for n, e in ERRORS.items() if n != "fault"])
def test_what_the_processor_says_of_the_database_comes_through(
    pool: Pool, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match="reason"):
        done(pool, load(pool, f"{name} reason"))


@pytest.mark.parametrize(
    ("fault", "message"), [("fault", "KeyError"), ("disk", "OSError (No space left on device)")]
)
def test_a_fault_of_ours_costs_the_batch_not_the_pool_and_quotes_nothing(
    pool: Pool, fault: str, message: str
) -> None:
    with pytest.raises(WorkerDied) as caught:
        done(pool, load(pool, fault))
    assert str(caught.value).startswith(f"the worker process failed: {message} File ")
    assert "secret" not in str(caught.value)
    assert done(pool, load(pool, "next"))[0].state == "loaded"


def test_what_a_failed_batch_leaves_in_cycles_is_collected_when_others_fail(tmp_path: Path) -> None:
    pool = Pool(1, StartActor())
    collected = tmp_path / "collected"
    for name in (f"cycle {collected}", "unavailable 1", "unavailable 2"):
        with pytest.raises(DatabaseUnavailable):
            done(pool, load(pool, name))
    was_collected = collected.exists()
    pool.stop(5)
    assert was_collected


def test_a_worker_that_dies_costs_its_own_batch_only(pool: Pool, tmp_path: Path) -> None:
    other = load(pool, f"wait {tmp_path / 'go'}")
    with pytest.raises(WorkerDied, match="the worker process ended"):
        done(pool, load(pool, "exit 3"))
    (tmp_path / "go").touch()
    assert done(pool, other)[0].state == "loaded"
    assert done(pool, load(pool, "next"))[0].state == "loaded"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("exit 3", "ended with exit code 3"),
        ("exit 0", "ended with exit code 0"),
        ("crash 11", r"ended by signal 11 \(Segmentation fault\)"),
        ("crash 40", r"ended by signal 40 \(Real-time signal 6\)"),
    ],
)
def test_how_a_worker_died_is_reported(pool: Pool, what: str, message: str) -> None:
    with pytest.raises(WorkerDied, match=message) as caught:
        done(pool, load(pool, what))
    assert not isinstance(caught.value, WorkerKilled)


# Hangs --------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short limits, as soon as both workers have started."""
    both = [load(pool, f"wait {tmp_path / 'started'}") for _ in range(2)]
    until(lambda: all(is_taken(pool, results) for results in both))
    (tmp_path / "started").touch()
    for results in both:
        done(pool, results)
    for limit, seconds in (("CHECK_SECONDS", 0.05), ("HANG_SECONDS", 0.5), ("DATABASE_SECONDS", 2.0)):
        monkeypatch.setattr(heartbeat, limit, seconds)


def is_taken(pool: Pool, results: Results) -> bool:
    """Whether a worker has begun with the batch."""
    return pool._flights[results].watch.is_taken


def watched(pool: Pool, results: Results) -> list[Outcome]:
    """As the daemon waits for it."""
    until(lambda: is_done(pool, results))
    return pool.outcomes(results)


def is_done(pool: Pool, results: Results) -> bool:
    pool.check()
    return results.done()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("stop", [signal.SIGSTOP, None], ids=["stopped", "hanging"])
def test_a_worker_that_makes_no_progress_is_killed_and_costs_its_own_batch_only(
    pool: Pool, tmp_path: Path, stop: signal.Signals | None
) -> None:
    other = load(pool, f"walk {tmp_path / 'go'}")
    begun = tmp_path / "begun"
    results = load(pool, f"hang {begun}" if stop is None else f"wait {begun}")
    if stop is not None:
        until(lambda: is_taken(pool, results))
        os.kill(pool._flights[results].worker.pid or 0, stop)
        begun.touch()
    with pytest.raises(WorkerHung, match=r"made no progress for 0\.5 s"):
        watched(pool, results)
    (tmp_path / "go").touch()
    assert watched(pool, other)[0].state == "loaded"
    assert done(pool, load(pool, "next"))[0].state == "loaded"
    until(lambda: len(workers()) == 2)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("busy", ["walk", "ask"])
def test_a_worker_that_makes_progress_or_waits_for_the_database_is_left_alone(
    pool: Pool, tmp_path: Path, busy: str
) -> None:
    results = load(pool, f"{busy} {tmp_path / 'go'}")
    deadline = time.monotonic() + 1.5
    until(lambda: is_done(pool, results) or time.monotonic() > deadline)
    (tmp_path / "go").touch()
    assert watched(pool, results)[0].state == "loaded"


@pytest.mark.usefixtures("impatient")
def test_no_answer_of_the_database_for_very_long_leaves_open_who_is_to_blame(
    pool: Pool, tmp_path: Path
) -> None:
    results = load(pool, f"ask {tmp_path / 'never'}")
    with pytest.raises(TransactionFailed, match="the database did not answer this batch for 2 s"):
        watched(pool, results)
    assert done(pool, load(pool, "next"))[0].state == "loaded"


def test_workers_that_can_not_be_started_are_started_later() -> None:
    """With room for no descriptor, for one, for two …: each time the start fails at another place."""
    for room in range(0, 50, 2):
        with only_descriptors(room):
            pool = Pool(2, StartActor())
            pool.start()
            with suppress(BatchLost):
                load(pool, "pid")
                break
        assert done(pool, load(pool, "pid"))[0].state == "loaded"
        pool.stop(0)
        assert workers() == []
    assert room > 3
    pool.stop(0)


@contextmanager
def only_descriptors(room: int) -> Iterator[None]:
    """This many more than are open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        highest = max(map(int, os.listdir("/proc/self/fd")))
        while stack.enter_context(open(os.devnull)).fileno() <= highest:
            continue
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2 + room, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("impatient")
def test_workers_that_take_no_batch_are_replaced(pool: Pool) -> None:
    for worker in workers():
        worker.suspend()
    for _ in range(2):
        with pytest.raises(BatchLost, match=r"no worker took the batch for 0\.5 s"):
            watched(pool, load(pool, "pid"))
    assert done(pool, load(pool, "next"))[0].state == "loaded"


def test_a_worker_killed_with_9_is_replaced(pool: Pool, tmp_path: Path) -> None:
    results = load(pool, f"hang {tmp_path / 'begun'}")
    until((tmp_path / "begun").exists)
    for worker in workers():
        worker.kill()
    with pytest.raises(WorkerKilled, match="SIGKILL"):
        done(pool, results)
    until(lambda: survives(pool) and len(workers()) == 2)


def test_idle_workers_killed_with_9_are_replaced_and_none_is_left_over(pool: Pool) -> None:
    for _ in range(3):
        until(lambda: survives(pool) and len(workers()) == 2)
        workers()[0].kill()
    until(lambda: survives(pool) and len(workers()) == 2)


def test_a_worker_that_ends_before_it_takes_a_batch_is_no_file_s_fault(pool: Pool) -> None:
    for worker in workers():  # before they could start
        worker.suspend()
    results = load(pool, "pid")
    for worker in workers():
        worker.kill()
    with pytest.raises(BatchLost, match=r"ended by signal 9 \(Killed\) before it took the batch"):
        done(pool, results)


def test_whatever_is_killed_and_when_each_batch_ends_at_once(pool: Pool) -> None:
    """All workers in one instant, in the midst of their start or of an answer of many pieces, too."""
    rng = random.Random(7)
    for _ in range(40):
        flights = [load(pool, *["pid"] * 5000) for _ in range(2)]
        time.sleep(rng.choice((0, 0.01, 0.3)) * rng.random())
        for worker in workers()[: rng.choice((1, 2))]:  # one from the round before may just be gone
            worker.kill()
        until(lambda flights=flights: all(flight.done() for flight in flights), 10)  # type: ignore[misc]
        for flight in flights:
            with suppress(WorkerKilled, BatchLost):
                assert len(pool.outcomes(flight)) == 5000


def test_an_answer_that_can_not_be_read_costs_the_batch_not_the_daemon(pool: Pool) -> None:
    with pytest.raises(WorkerDied, match="the worker's answer can't be read: TypeError"):
        done(pool, load(pool, "riddle"))
    assert done(pool, load(pool, "next"))[0].state == "loaded"


def survives(pool: Pool) -> bool:
    """A batch may be lost in the instant in which the death is noticed, but not one after the other."""
    try:
        return bool(done(pool, load(pool, "next")))
    except (WorkerDied, BatchLost):
        return False


def test_a_batch_of_a_pool_that_is_stopped_is_lost_and_no_file_to_blame(
    pool_to_stop: Pool, tmp_path: Path
) -> None:
    results = load(pool_to_stop, f"hang {tmp_path / 'begun'}")
    until((tmp_path / "begun").exists)
    pool_to_stop.stop(0)
    with pytest.raises(BatchLost):
        done(pool_to_stop, results)


def test_a_processor_that_can_not_start_is_started_again_for_the_next_batch() -> None:
    pool = Pool(1, fail_to_start)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match="not yet"):
            done(pool, load(pool, "pid"))
    pool.stop(0)


def test_stop_lets_a_batch_end(pool_to_stop: Pool, tmp_path: Path) -> None:
    results = load(pool_to_stop, f"wait {tmp_path / 'go'}")
    (tmp_path / "go").touch()
    pool_to_stop.stop(20)
    assert pool_to_stop.outcomes(results)[0].state == "loaded"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGIO])
def test_workers_do_not_hear_what_a_terminal_sends_to_all(
    pool: Pool, tmp_path: Path, number: signal.Signals
) -> None:
    results = load(pool, f"wait {tmp_path / 'go'}")
    until(lambda: is_taken(pool, results))
    for worker in workers():
        worker.send_signal(number)
    (tmp_path / "go").touch()
    assert done(pool, results)[0].state == "loaded"


PARENT = """
import sys, time
from service.pool import Pool
from tests.service.test_pool import StartActor
if __name__ == "__main__":
    pool = Pool(4, StartActor())
    pool.start()
    print("started", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"started\n"
        yield process
        process.kill()


def test_workers_end_with_a_parent_that_is_killed_even_while_they_start(
    parent: subprocess.Popen[bytes],
) -> None:
    children = psutil.Process(parent.pid).children()
    assert len(children) == 5
    parent.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def test_ctrl_c_while_workers_start_prints_no_traceback_of_theirs(parent: subprocess.Popen[bytes]) -> None:
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.stderr is not None
    message = parent.stderr.read().decode()
    assert message.count("Traceback") == 1 and "parent.py" in message, message
