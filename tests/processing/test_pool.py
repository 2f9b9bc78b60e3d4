"""Worker processes: what becomes of their batches, their errors, their deaths and of signals."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import psutil
import pytest

from processing.errors import DatabaseUnavailable, Misconfigured, TryAgain
from processing.pool import BatchLost, Pool, Results, WorkerDied, outcomes
from processing.processor import Outcome, Processor, Work
from tests.support import ROOT, until

ERRORS = {
    "unavailable": DatabaseUnavailable,
    "again": TryAgain,
    "misconfigured": Misconfigured,
    "fault": KeyError,
}


class Actor:
    """A processor that does what the names of its files say, "pid" by default."""

    def load(self, batch: list[Work]) -> list[Outcome]:
        return [self._act(*work.name.split()) for work in batch]

    def _act(self, what: str, value: str = "") -> Outcome:
        if what in ERRORS:
            raise ERRORS[what]("because of secret rows" if what == "fault" else value)
        if what == "cycle":
            self._leave_a_cycle(Path(value))
        if what == "exit":
            os._exit(int(value))
        if what == "hang":
            Path(value).touch()
            signal.pause()
        if what == "wait":
            until(Path(value).exists)
        return Outcome(what, "loaded", str(os.getpid()))

    def _leave_a_cycle(self, collected: Path) -> None:
        """As an exception does whose traceback leads to what keeps it; it tells when it is collected."""
        rows: list[object] = [Told(collected)]
        rows.append(rows)
        raise DatabaseUnavailable("in the middle of a chunk")


class Told:
    """Makes a file when it is collected."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __del__(self) -> None:
        self._path.touch()


@dataclass(frozen=True)
class StartActor:
    def __call__(self) -> Processor:
        return cast(Processor, Actor())


def fail_to_start() -> Processor:
    raise DatabaseUnavailable("not yet")


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(2, StartActor())
    yield pool
    pool.stop(0)
    assert workers() == []


@pytest.fixture
def pool_to_stop() -> Iterator[Pool]:
    """One that the test itself stops."""
    yield Pool(2, StartActor())
    assert workers() == []


def workers() -> list[psutil.Process]:
    """Children that load, not multiprocessing's own tracker."""
    children = psutil.Process().children()
    return [child for child in children if "spawn_main" in " ".join(command_line(child))]


def command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def load(pool: Pool, *names: str) -> Results:
    return pool.load([Work(name) for name in names])


def done(results: Results) -> list[Outcome]:
    until(results.done)
    return outcomes(results)


def test_a_batch_comes_back_with_its_outcomes_in_order(pool: Pool) -> None:
    assert [(o.name, o.state) for o in done(load(pool, "b", "a", "c"))] == [
        ("b", "loaded"),
        ("a", "loaded"),
        ("c", "loaded"),
    ]


def test_as_many_batches_as_there_are_workers_are_loaded_at_once(pool: Pool, tmp_path: Path) -> None:
    first = load(pool, f"wait {tmp_path / 'go'}")
    second = load(pool, "pid")
    done(second)
    assert not first.done()
    (tmp_path / "go").touch()
    assert done(first)[0].reason != done(second)[0].reason


def test_the_workers_are_there_before_the_first_batch(pool: Pool) -> None:
    until(lambda: len(workers()) == 2)


@pytest.mark.parametrize(("name", "error"), [(n, e) for n, e in ERRORS.items() if n != "fault"])
def test_what_the_processor_says_of_the_database_comes_through(
    pool: Pool, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match="reason"):
        done(load(pool, f"{name} reason"))


def test_a_fault_of_ours_costs_the_batch_not_the_pool_and_quotes_nothing(pool: Pool) -> None:
    with pytest.raises(WorkerDied) as caught:
        done(load(pool, "fault"))
    assert str(caught.value).startswith("KeyError File ") and "secret" not in str(caught.value)
    assert done(load(pool, "next"))[0].state == "loaded"


def test_what_a_failed_batch_leaves_in_cycles_is_collected_when_others_fail(tmp_path: Path) -> None:
    pool = Pool(1, StartActor())
    collected = tmp_path / "collected"
    for name in (f"cycle {collected}", "unavailable 1", "unavailable 2"):
        with pytest.raises(DatabaseUnavailable):
            done(load(pool, name))
    was_collected = collected.exists()
    pool.stop(5)
    assert was_collected


def test_a_worker_that_dies_costs_its_own_batch_only(pool: Pool, tmp_path: Path) -> None:
    other = load(pool, f"wait {tmp_path / 'go'}")
    with pytest.raises(WorkerDied, match="the worker process ended"):
        done(load(pool, "exit 3"))
    (tmp_path / "go").touch()
    assert done(other)[0].state == "loaded"
    assert done(load(pool, "next"))[0].state == "loaded"


def test_a_worker_killed_with_9_is_replaced(pool: Pool, tmp_path: Path) -> None:
    results = load(pool, f"hang {tmp_path / 'begun'}")
    until((tmp_path / "begun").exists)
    for worker in workers():
        worker.kill()
    with pytest.raises((WorkerDied, BatchLost)):
        done(results)
    assert done(load(pool, "next"))[0].state == "loaded"
    until(lambda: len(workers()) == 2)


def test_idle_workers_killed_with_9_are_replaced_and_none_is_left_over(pool: Pool) -> None:
    for _ in range(3):
        until(lambda: survives(pool) and len(workers()) == 2)
        workers()[0].kill()
    until(lambda: survives(pool) and len(workers()) == 2)


def survives(pool: Pool) -> bool:
    """A batch may be lost in the instant in which the death is noticed, but not one after the other."""
    try:
        return bool(done(load(pool, "next")))
    except (WorkerDied, BatchLost):
        return False


def test_a_batch_of_a_pool_that_is_stopped_is_lost_and_no_file_to_blame(
    pool_to_stop: Pool, tmp_path: Path
) -> None:
    results = load(pool_to_stop, f"hang {tmp_path / 'begun'}")
    until((tmp_path / "begun").exists)
    pool_to_stop.stop(0)
    with pytest.raises(BatchLost):
        done(results)


def test_a_processor_that_can_not_start_is_started_again_for_the_next_batch() -> None:
    pool = Pool(1, fail_to_start)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match="not yet"):
            done(load(pool, "pid"))
    pool.stop(0)


def test_stop_lets_a_batch_end(pool_to_stop: Pool, tmp_path: Path) -> None:
    results = load(pool_to_stop, f"wait {tmp_path / 'go'}")
    (tmp_path / "go").touch()
    pool_to_stop.stop(20)
    assert outcomes(results)[0].state == "loaded"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGIO])
def test_workers_do_not_hear_what_a_terminal_sends_to_all(
    pool: Pool, tmp_path: Path, number: signal.Signals
) -> None:
    results = load(pool, f"wait {tmp_path / 'go'}")
    until(results.running)
    for worker in workers():
        worker.send_signal(number)
    (tmp_path / "go").touch()
    assert done(results)[0].state == "loaded"


PARENT = """
import sys, time
from processing.pool import Pool
from tests.processing.test_pool import StartActor
if __name__ == "__main__":
    pool = Pool(4, StartActor())
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
    told = parent.stderr.read().decode()
    assert told.count("Traceback") == 1 and "parent.py" in told, told
