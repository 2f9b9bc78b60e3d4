"""Runs for a long time under load with occasional faults, and measures what the daemon then uses."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import combinations

import psutil

from tests.chaos.producers import Producers
from tests.chaos.rig import Figure, Finding, Rig, Sample, Trial
from tests.support import drop

_SECONDS = 60.0

#: Pause of a producer after each file, while memory is measured.
_PAUSE = 0.3

#: Memory depends on the largest file so far and on caches of vehicles; each file has a vehicle of its own. So
#: the run begins with the most: large files for each worker, and small ones as fast as they can be made.
#: After that the load is steady, with smaller files.
_WORKERS, _LARGE = 2, 50_000
_LARGEST_AT_FIRST, _LARGEST = 300, 3000

#: The part of the time in which memory may grow. Workers are killed only then: a new one would grow again.
_WARM_UP = 1 / 3

_MB_AN_HOUR = 2.0

#: Number of points for a slope, and the least number of seconds that they cover.
_POINTS, _LEAST_SECONDS = 20, 300.0

#: A process that was seen this shortly before the end has lived until the end.
_LATE = 5.0


def soak(trial: Trial) -> Finding:
    """Causes a fault a minute; the volume is minutes, which have only a few seconds in a short run."""
    minute = _SECONDS * max(0.05, min(1.0, trial.share))
    with trial.rig(WORKERS=_WORKERS) as rig:
        with rig.loaded(producers=2) as producers:
            for number in trial.rounds():
                is_cold = number + 1 < trial.volume * _WARM_UP
                _set_load(rig, producers, is_cold)
                time.sleep(minute)
                trial.rng.choice(_FAULTS if is_cold else _MILD_FAULTS)(rig)
            time.sleep(min(minute, 10))
        finding = rig.finding()
    take_figures(finding, rig.meter.samples)
    return finding


def _set_load(rig: Rig, producers: Producers, is_cold: bool) -> None:
    if is_cold:
        producers.largest = _LARGEST_AT_FIRST
        for _ in range(_WORKERS):
            rig.drop(_LARGE)
    else:
        producers.largest, producers.pause = _LARGEST, _PAUSE


# Figures ------------------------------------------------------------------------------------------


def take_figures(finding: Finding, samples: Sequence[Sample]) -> None:
    """Adds the figures of processes that lived through the whole warm part; younger ones still grow."""
    start, end = samples[0].moment, samples[-1].moment
    warm = start + (end - start) * _WARM_UP
    lives = [life for life in _lives(samples) if life[0].moment < warm and life[-1].moment > end - _LATE]
    if not any(life[0].is_worker for life in lives):
        finding.complaints.append("no worker lived long enough to be measured")
    figures = [figure for life in lives for figure in _figures_of([s for s in life if s.moment > warm])]
    worst = {figure.name: figure for figure in sorted(figures, key=lambda figure: figure.value)}
    finding.figures += worst.values()


def _lives(samples: Sequence[Sample]) -> list[list[Sample]]:
    found: defaultdict[tuple[int, float], list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.process].append(sample)
    return list(found.values())


def _figures_of(life: Sequence[Sample]) -> list[Figure]:
    """Returns additional descriptors and threads, and the slope of memory if the time is long enough."""
    name = "a worker's" if life[0].is_worker else "the daemon's"
    third = len(life) // 3
    figures = []
    for what in ("descriptors", "threads"):
        first, last = (
            statistics.median_high(getattr(sample, what) for sample in part)
            for part in (life[:third], life[-third:])
        )
        figures.append(Figure(f"{name} additional {what}", last - first, 0, ""))
    if life[-1].moment - life[0].moment > _LEAST_SECONDS:
        figures.append(Figure(f"{name} memory", _slope(life), _MB_AN_HOUR, "MB/h"))
    return figures


def _slope(life: Sequence[Sample]) -> float:
    """Returns the median slope between all pairs of points, which a single step up or down hardly changes."""
    size = len(life) // _POINTS
    points = [
        (
            statistics.median(sample.moment / 3600 for sample in part),
            statistics.median(sample.memory for sample in part),
        )
        for part in (life[n * size : (n + 1) * size] for n in range(_POINTS))
    ]
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2))


# Faults -------------------------------------------------------------------------------------------


def _kill_a_worker(rig: Rig) -> None:
    """Kills the youngest worker; the oldest is needed to measure a long life."""
    with suppress(psutil.NoSuchProcess, ValueError):
        max(rig.workers(), key=lambda worker: worker.create_time()).kill()


def _end_connections(rig: Rig) -> None:
    rig.daemon.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mobileye-data'"
    )


def _drop_a_bad_file(rig: Rig) -> None:
    drop(rig.daemon.incoming, "vehicles_status_bad.json", b'{"vehicle_status": [}')


def _drop_again(rig: Rig) -> None:
    """Drops the same bytes under another name, like a producer that is not sure that it sent them."""
    for file in rig.journal.recent(5):
        drop(rig.daemon.incoming, f"again_{file.name}", file.content())


_MILD_FAULTS: tuple[Callable[[Rig], None], ...] = (_end_connections, _drop_a_bad_file, _drop_again)
_FAULTS = (_kill_a_worker, *_MILD_FAULTS)
