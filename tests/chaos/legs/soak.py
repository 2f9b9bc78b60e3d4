"""Runs for long under a mixed load, with a fault now and then, and looks at what the daemon then costs."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil

from tests.chaos.rig import Figure, Finding, Rig, Trial
from tests.support import drop

_SECONDS = 60.0

#: Of a producer after each file: the load is steady, and half of what a machine can.
_PAUSE = 0.2

#: Memory climbs at first, and again in workers that a fault made anew.
_WARM_UP = 300.0
_MB_AN_HOUR = 2.0


def soak(trial: Trial) -> Finding:
    """A fault a minute; the volume is minutes, each of a few seconds where the run is short."""
    minute = _SECONDS * max(0.05, min(1.0, trial.share))
    with trial.rig() as rig:
        with rig.loaded(producers=2, pause=_PAUSE):
            for _ in trial.rounds():
                time.sleep(minute)
                trial.rng.choice(_FAULTS)(rig)
            time.sleep(min(minute, 10))
        return rig.finding(*_figures(rig.meter.samples))


def _figures(samples: Sequence[tuple[float, float, int, int]]) -> list[Figure]:
    """Slope of memory; descriptors and threads in the last third against those in the middle one."""
    warm = [sample for sample in samples if sample[0] - samples[0][0] > _WARM_UP]
    if len(warm) < 3:
        return []  # too short to tell
    moments, memory = [sample[0] / 3600 for sample in warm], [sample[1] for sample in warm]
    third = len(warm) // 3
    figures = [Figure("memory", statistics.linear_regression(moments, memory).slope, _MB_AN_HOUR, "MB/h")]
    for column, name in ((2, "descriptors"), (3, "threads")):
        middle, last = (
            statistics.median(sample[column] for sample in part)
            for part in (warm[third:-third], warm[-third:])
        )
        figures.append(Figure(f"more {name}", last - middle, 0, ""))
    return figures


def _kill_a_worker(rig: Rig) -> None:
    """The youngest: the oldest is to show what a long life costs."""
    with suppress(psutil.NoSuchProcess, ValueError):
        max(rig.workers(), key=lambda worker: worker.create_time()).kill()


def _end_connections(rig: Rig) -> None:
    rig.daemon.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mobileye-data'"
    )


def _drop_a_bad_file(rig: Rig) -> None:
    drop(rig.daemon.incoming, "vehicles_status_bad.json", b'{"vehicle_status": [}')


def _drop_again(rig: Rig) -> None:
    """The same bytes under another name: a producer that did not believe that it had sent them."""
    for file in rig.journal.recent(5):
        drop(rig.daemon.incoming, f"again_{file.name}", file.content())


_FAULTS: tuple[Callable[[Rig], None], ...] = (
    _kill_a_worker,
    _end_connections,
    _drop_a_bad_file,
    _drop_again,
)
