"""Drops documents that would exhaust the memory of a careless parser, or crash it."""

import time
from contextlib import suppress

from tests.chaos.rig import Figure, Finding, Rig, Trial
from tests.processing.bombs import BOMBS, Generated
from tests.support import until

_VERDICT, _MEMORY = 10.0, 300.0


def bombs(trial: Trial) -> Finding:
    """Checks that each bomb gets its verdict in time and in little memory, and that the next file loads."""
    trial.take(len(BOMBS))
    names = trial.rng.sample(sorted(BOMBS), len(BOMBS))
    slowest = 0.0
    with trial.rig(WORKERS=1, SETTLE_SECONDS=1) as rig:
        with rig.watched():
            for number in trial.rounds():
                slowest = max(slowest, _seconds_to_a_verdict(rig, names[number]))
                rig.drop(12)
            rig.drain()
        finding = rig.finding(Figure("slowest verdict", slowest, _VERDICT))
    finding.figures[-1] = Figure("memory", rig.meter.peak, _MEMORY, "MB")
    if " worker died " in rig.daemon.log():
        finding.complaints.append("a worker died of a bomb")
    return finding


def _seconds_to_a_verdict(rig: Rig, name: str) -> float:
    path = rig.daemon.incoming / f"bomb_{list(BOMBS).index(name)}.json"
    hidden = path.with_suffix(".tmp")
    text = Generated(BOMBS[name]())
    with open(hidden, "wb") as file:
        file.writelines(iter(text.read, b""))
    started = time.monotonic()
    hidden.rename(path)
    with suppress(AssertionError):  # the figure shows it
        until(lambda: not path.exists(), 3 * _VERDICT)
    return time.monotonic() - started
