"""Runs for long under a mixed load, with a fault now and then, and looks at what the daemon then costs."""

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

#: Of a producer after each file, when memory is measured.
_PAUSE = 0.3

#: Memory follows the largest file that there ever was, and caches of vehicles, of which each file has its
#: own. So all comes at once at first: large files for each worker, and small ones as fast as they can be
#: made; then a load that stays the same, with none as large.
_WORKERS, _LARGE = 2, 50_000
_LARGEST_AT_FIRST, _LARGEST = 300, 3000

#: In this part of the time memory may climb, and workers are killed: a new one would climb again.
_WARM_UP = 1 / 3

_MB_AN_HOUR = 2.0

#: Slopes are told by so many points, over so many seconds at the least.
_POINTS, _LEAST_SECONDS = 20, 300.0

#: Who was seen so shortly before the end lived through it.
_LATE = 5.0


def soak(trial: Trial) -> Finding:
    """A fault a minute; the volume is minutes, each of a few seconds where the run is short."""
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
    """Of processes that lived through all of the time when warm: of others one would only see the youth."""
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
    """Slope of memory, if that can be told yet; descriptors and threads at the end against the start."""
    name = "a worker's" if life[0].is_worker else "the daemon's"
    third = len(life) // 3
    figures = []
    for what in ("descriptors", "threads"):
        first, last = (
            statistics.median_high(getattr(sample, what) for sample in part)
            for part in (life[:third], life[-third:])
        )
        figures.append(Figure(f"{name} more {what}", last - first, 0, ""))
    if life[-1].moment - life[0].moment > _LEAST_SECONDS:
        figures.append(Figure(f"{name} memory", _slope(life), _MB_AN_HOUR, "MB/h"))
    return figures


def _slope(life: Sequence[Sample]) -> float:
    """The median of the slopes between all pairs of points: a step, up or down, is none."""
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


_MILD_FAULTS: tuple[Callable[[Rig], None], ...] = (_end_connections, _drop_a_bad_file, _drop_again)
_FAULTS = (_kill_a_worker, *_MILD_FAULTS)
