"""Runs a leg against a server, in a folder of its own, and tells what came of it."""

import math
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.catalogue import FULL_MINUTES, Leg
from tests.chaos.oracle import FAULTS
from tests.chaos.rig import Finding, NaiveDaemon, Trial
from tests.support import Daemon, Server

#: A leg has at least so many seconds: starts alone take some.
_LEAST_SECONDS = 120.0


@dataclass(frozen=True)
class Result:
    """What a leg has found, and whether that is good enough."""

    leg: Leg
    seed: int
    done: int
    wanted: int
    seconds: float
    finding: Finding

    @property
    def shortfalls(self) -> list[str]:
        """Everything for which the leg fails."""
        slow = [
            f"{figure} > {figure.limit:g} {figure.unit}"
            for figure in self.finding.figures
            if figure.value > figure.limit
        ]
        return [*self.faults, *slow]

    @property
    def faults(self) -> list[str]:
        """The same without the figures, which depend on what else the machine does."""
        counts = self.finding.counts
        few = [f"only {self.done} of {self.wanted} {self.leg.unit}"] if self.done < self.wanted else []
        wrong = [f"{counts[fault]} {fault}" for fault in FAULTS if counts[fault]]
        return [*few, *wrong, *self.finding.complaints]

    @property
    def is_good(self) -> bool:
        return not self.shortfalls


def run_apart(leg: Leg, *, minutes: float, seed: int, naive: bool = False) -> Result:
    """One leg with a server of its own."""
    with a_server() as server:
        return run(leg, server, minutes=minutes, seed=seed, naive=naive)


def run(leg: Leg, server: Server, *, minutes: float, seed: int, naive: bool = False) -> Result:
    """One leg, as much of it as belongs into a run of so many minutes."""
    share = minutes / FULL_MINUTES
    wanted = math.ceil(leg.volume * share)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        own_seed = zlib.crc32(f"{seed}-{leg.name}".encode())
        seconds = max(_LEAST_SECONDS, leg.minutes * 60 * share)
        program = NaiveDaemon if naive else Daemon
        trial = Trial(server, Path(folder), own_seed, wanted, share, seconds, program)
        started = time.monotonic()
        finding = _tried(leg, trial)
    return Result(leg, seed, trial.done, max(trial.volume, 1), time.monotonic() - started, finding)


def _tried(leg: Leg, trial: Trial) -> Finding:
    try:
        return leg.run(trial)
    except Exception as error:  # noqa: BLE001  # a leg that breaks has failed; the others go on
        return Finding(complaints=[f"{type(error).__name__}: {error}"[:2000]])


@contextmanager
def a_server() -> Iterator[Server]:
    """A server that the legs may harm."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = Server(Path(folder) / "server")
        server.create()
        server.start("fsync=off")  # processes are killed, never the machine
        try:
            yield server
        finally:
            server.stop()
