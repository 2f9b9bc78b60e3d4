"""Runs a scenario against a server, in its own folder, and returns the result."""

import math
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.catalogue import FULL_MINUTES, Scenario
from tests.chaos.oracle import FAULTS
from tests.chaos.rig import Finding, NaiveDaemon, Trial
from tests.support import Daemon, Server, running_server

#: The least time limit of a scenario; starts alone take some seconds.
_LEAST_SECONDS = 120.0


@dataclass(frozen=True)
class Result:
    """The finding of a scenario, and whether it is good enough."""

    scenario: Scenario
    seed: int
    done: int
    wanted: int
    seconds: float
    finding: Finding

    @property
    def shortfalls(self) -> list[str]:
        """Reasons why the scenario fails."""
        slow = [
            f"{figure} > {figure.limit:g} {figure.unit}"
            for figure in self.finding.figures
            if figure.value > figure.limit
        ]
        return [*self.faults, *slow]

    @property
    def faults(self) -> list[str]:
        """Reasons why the scenario fails, without the figures, which depend on the load of the machine."""
        counts = self.finding.counts
        few = [f"only {self.done} of {self.wanted} {self.scenario.unit}"] if self.done < self.wanted else []
        wrong = [f"{counts[fault]} {fault}" for fault in FAULTS if counts[fault]]
        return [*few, *wrong, *self.finding.complaints]

    @property
    def is_good(self) -> bool:
        return not self.shortfalls


def run_apart(scenario: Scenario, *, minutes: float, seed: int, naive: bool = False) -> Result:
    """Runs one scenario with its own server."""
    with running_server("fsync=off") as server:  # processes are killed, never the machine
        return run(scenario, server, minutes=minutes, seed=seed, naive=naive)


def run(scenario: Scenario, server: Server, *, minutes: float, seed: int, naive: bool = False) -> Result:
    """Runs one scenario, as much of it as its share of a run of `minutes`."""
    share = minutes / FULL_MINUTES
    wanted = math.ceil(scenario.volume * share)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        own_seed = zlib.crc32(f"{seed}-{scenario.name}".encode())
        seconds = max(_LEAST_SECONDS, scenario.minutes * 60 * share)
        program = NaiveDaemon if naive else Daemon
        trial = Trial(server, Path(folder), own_seed, wanted, share, seconds, program)
        started = time.monotonic()
        finding = _tried(scenario, trial)
    return Result(scenario, seed, trial.done, max(trial.volume, 1), time.monotonic() - started, finding)


def _tried(scenario: Scenario, trial: Trial) -> Finding:
    try:
        return scenario.run(trial)
    except Exception as error:  # noqa: BLE001  # a scenario that breaks has failed; the others continue
        return Finding(complaints=[f"{type(error).__name__}: {error}"[:2000]])
