"""Kills and stops the daemon and its workers at random under load."""

import signal
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

from tests.chaos.rig import Figure, Finding, Rig, Trial, p99
from tests.support import until

_VICTIMS = ("daemon", "a worker", "all workers")


def kills(trial: Trial) -> Finding:
    """Kills the daemon, one worker or all workers with SIGKILL."""
    restarts: list[float] = []
    with trial.rig() as rig:
        with rig.loaded():
            for _ in trial.rounds():
                time.sleep(trial.rng.uniform(0, 0.5))
                if trial.rng.choice(_VICTIMS) == "daemon":
                    rig.end()
                    restarts.append(_first_commit(rig))
                else:
                    _kill_workers(rig, trial.rng.choice((1, 64)))
        return rig.finding(Figure("restart to first commit p99", p99(restarts), 3))


def stops(trial: Trial) -> Finding:
    """Sends SIGTERM or SIGINT: the daemon must stop in time, with exit code 0."""
    exits: list[float] = []
    codes: set[int] = set()
    with trial.rig() as rig:
        with rig.loaded():
            for _ in trial.rounds():
                rig.until_commit(rig.now())
                time.sleep(trial.rng.uniform(0, 0.3))
                started = time.monotonic()
                codes.add(rig.daemon.stop(trial.rng.choice((signal.SIGTERM, signal.SIGINT))))
                exits.append(time.monotonic() - started)
                rig.daemon.start(wait=False)
        finding = rig.finding(Figure("exit p99", p99(exits), 5))
    if codes - {0} and trial.is_ours:
        finding.complaints.append(f"exit codes {sorted(codes)}")
    return finding


def _first_commit(rig: Rig) -> float:
    since, started = rig.now(), time.monotonic()
    rig.daemon.start(wait=False)
    rig.until_commit(since)
    return time.monotonic() - started


def _kill_workers(rig: Rig, count: int) -> None:
    """Kills up to `count` workers; waits for the first one, which a new daemon may not have yet."""
    rig.revive()
    try:
        workers: Sequence[psutil.Process] = until(rig.workers, 20, "there are workers")
    except AssertionError as error:
        assert rig.daemon.process is not None
        state = "ended" if rig.daemon.process.poll() is not None else "alive"
        raise AssertionError(f"{error}; the daemon is {state}: {rig.daemon.log()[-1500:]}") from None
    for worker in workers[:count]:
        with suppress(psutil.NoSuchProcess):
            worker.kill()
