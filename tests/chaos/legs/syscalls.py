"""Kills the ingest, or has its calls fail, at every system call that it makes."""

import itertools
import random
from collections import Counter
from collections.abc import Callable

from tests.chaos.kills import KillRig, Point
from tests.chaos.rig import Finding, Trial, prepare

ERRORS = ("EIO", "ENOSPC", "EACCES", "EMFILE", "EINTR")

_BAD_FILE = "vehicles_status_3.json"


def kill_points(trial: Trial) -> Finding:
    """A kill at each point, or at as many as asked for, in an order by chance; then a restart."""
    return _at_points(trial, lambda rig, points: [[point] for point in points], KillRig.kill_at)


def kill_pairs(trial: Trial) -> Finding:
    """A kill, and another one during the recovery from it."""

    def pairs(rig: KillRig, points: list[Point]) -> list[list[Point]]:
        return [list(pair) for pair in zip(points, reversed(points), strict=True)]

    return _at_points(trial, pairs, KillRig.kill_at)


def failing_calls(trial: Trial) -> Finding:
    """An error instead of the call, once or from then on; then a run without faults."""
    return _at_points(trial, lambda rig, points: [[point] for point in points], _Failing(trial.rng))


class _Failing:
    """Has a call fail with an error by chance."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def __call__(self, rig: KillRig, point: Point) -> bool:
        return rig.fail_at(point, self._rng.choice(ERRORS), for_ever=self._rng.random() < 0.5)


def _at_points(
    trial: Trial,
    arranged: Callable[[KillRig, list[Point]], list[list[Point]]],
    strike: Callable[[KillRig, Point], bool],
) -> Finding:
    finding = Finding()
    with trial.server.database() as database:
        prepare(database, is_ours=True)
        rig = KillRig(trial.folder / "incoming", database)
        tries = itertools.cycle(arranged(rig, trial.rng.sample(rig.points, len(rig.points))))
        if not trial.volume:
            trial.take(len(rig.points))
        for _ in trial.rounds():
            points = next(tries)
            rig.reset()
            for point in points:
                strike(rig, point)
                finding.counts["torn"] += rig.torn()
            rig.restart()
            _compare(rig, points, finding)
    return finding


def _compare(rig: KillRig, points: list[Point], finding: Finding) -> None:
    """The tables, the folder and failed/ against those of the run without faults."""
    found = rig.rows()
    for table, expected in rig.expected.items():
        there, due = Counter(found[table]), Counter(expected)
        finding.counts["lost"] += (due - there).total()
        finding.counts["doubled" if table != "ingested_files" else "ledger"] += (there - due).total()
    finding.counts["wrong deletes"] += rig.failed().count(_BAD_FILE) != 1
    finding.counts["good failed"] += len(set(rig.failed()) - {_BAD_FILE})
    if rig.left() or found != rig.expected or rig.failed() != [_BAD_FILE]:
        finding.complaints.append(f"at {' then '.join(map(str, points))}: left {rig.left()}")
