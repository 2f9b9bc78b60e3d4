"""Drops documents that would take a careless parser's memory or life."""

import time
from contextlib import suppress

from tests.chaos.rig import Figure, Finding, Trial
from tests.processing.bombs import BOMBS, Generated
from tests.support import until

_VERDICT, _MEMORY = 10.0, 300.0


def bombs(trial: Trial) -> Finding:
    """Each bomb gets its verdict in time and in little memory, and the next file loads."""
    trial.take(len(BOMBS))
    names = trial.rng.sample(sorted(BOMBS), len(BOMBS))
    slowest = 0.0
    with trial.rig(WORKERS=1, SETTLE_SECONDS=1) as rig:
        with rig.watched():
            for number in trial.rounds():
                path = rig.daemon.incoming / f"bomb_{number}.json"
                hidden = path.with_suffix(".tmp")
                text = Generated(BOMBS[names[number]]())
                with open(hidden, "wb") as file:
                    file.writelines(iter(text.read, b""))
                started = time.monotonic()
                hidden.rename(path)
                with suppress(AssertionError):  # the figure tells
                    until(lambda path=path: not path.exists(), 3 * _VERDICT)
                slowest = max(slowest, time.monotonic() - started)
                rig.drop(12)
            rig.drain()
        finding = rig.finding(Figure("slowest verdict", slowest, _VERDICT))
    finding.figures.append(Figure("memory", rig.meter.peak, _MEMORY, "MB"))
    if " worker died " in rig.daemon.log():
        finding.complaints.append("a worker died of a bomb")
    return finding
