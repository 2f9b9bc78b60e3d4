"""Harms the requests to a bucket, and the daemons that share one."""

import threading
import time
from contextlib import ExitStack, suppress
from functools import partial
from random import Random
from typing import TypeVar

from tests.chaos.background import beside
from tests.chaos.fleets import BucketFleet, bucket_fleet
from tests.chaos.rig import Figure, Finding, Trial, p99
from tests.support import until

#: The pause between two objects that are put.
_PAUSE = 0.02

#: Requests that are answered with 503, are late, or whose answer is cut, and shares of it that pass.
_REFUSED, _LATE, _CUT = 0.1, 0.1, 0.05
_SHARES = (0.0, 0.01, 0.5, 0.99)
_LATEST = 0.5

#: An object in this many begins an outage of the whole server, which lasts for some seconds.
_OUTAGE_EVERY, _OUTAGE_SECONDS = 500, 8.0

_DAEMONS = 4

T = TypeVar("T")

#: The longest that a daemon is frozen, in a full run: longer than a claim lives.
_FROZEN_SECONDS = 45.0

#: Others take over what a frozen or killed daemon had.
_TAKEN_OVER_WITHIN = 40.0


def requests(trial: Trial) -> Finding:
    """Refuses, delays and cuts requests, with outages of all; meanwhile objects are replaced by others."""
    with bucket_fleet(trial, 1) as fleet:
        weather = Weather(trial.seed)
        fleet.proxy.fault, fleet.proxy.cut = weather.fault, weather.cut
        with fleet.watched():
            for number in trial.rounds():
                fleet.put()
                time.sleep(_PAUSE)
                if number % _OUTAGE_EVERY == _OUTAGE_EVERY // 2:
                    weather.storm(_OUTAGE_SECONDS)
            weather.clear()
            fleet.drain()
        finding = fleet.finding()
    counts = weather.harmed
    finding.figures.append(Figure("requests that were harmed", counts, float("inf"), ""))
    if not counts:
        finding.complaints.append("no request was harmed")
    return finding


def daemons(trial: Trial) -> Finding:
    """Kills and freezes some of four daemons on one bucket, never all: the others take over."""
    taken_over: list[float] = []
    longest = _FROZEN_SECONDS * min(1.0, max(0.05, trial.share))
    with bucket_fleet(trial, _DAEMONS) as fleet:
        with fleet.watched(), beside(partial(_put, fleet)):
            for _ in trial.rounds():
                time.sleep(trial.rng.uniform(0, 1))
                victims = trial.rng.sample(range(_DAEMONS), trial.rng.choice((1, 2)))
                if trial.rng.random() < 0.5:
                    for victim in victims:
                        fleet.kill(victim)
                    taken_over.append(_taken_over(fleet))
                    fleet.revive()
                else:
                    taken_over.append(_frozen(fleet, victims, trial.rng.uniform(0, longest)))
        fleet.drain()
        gets = fleet.proxy.gets(".json") / max(1, fleet.objects)
        return fleet.finding(
            Figure("taken over p99", p99(taken_over), _TAKEN_OVER_WITHIN),
            Figure("GETs an object", gets, 2.0, ""),
        )


class Weather:
    """What becomes of each request, drawn by chance."""

    def __init__(self, seed: int) -> None:
        self.harmed = 0
        self._rng = Random(seed)
        self._lock = threading.Lock()
        self._is_clear = False
        self._stormy_until = 0.0

    def storm(self, seconds: float) -> None:
        """Lets the server answer nothing but 503 for a while."""
        self._stormy_until = time.monotonic() + seconds

    def clear(self) -> None:
        self._is_clear = True
        self._stormy_until = 0.0

    def fault(self, kind: str, path: str) -> tuple[int, str] | None:
        chance = self._draw()
        if chance < _REFUSED or time.monotonic() < self._stormy_until:
            return self._harm((503, "SlowDown"))
        if chance < _REFUSED + _LATE:
            time.sleep(chance / (_REFUSED + _LATE) * _LATEST)
            return self._harm(None)
        return None

    def cut(self, kind: str, path: str) -> float | None:
        chance = self._draw()
        return self._harm(_SHARES[int(chance / _CUT * len(_SHARES))]) if chance < _CUT else None

    def _draw(self) -> float:
        with self._lock:
            return 1.0 if self._is_clear else self._rng.random()

    def _harm(self, how: T) -> T:
        with self._lock:
            self.harmed += 1
        return how


def _put(fleet: BucketFleet, stop: threading.Event) -> None:
    """Puts objects, one after the other."""
    while not stop.wait(_PAUSE):
        fleet.put()


def _frozen(fleet: BucketFleet, victims: list[int], seconds: float) -> float:
    """Freezes daemons for so long; returns the time until the others had loaded what was there."""
    started = time.monotonic()
    with ExitStack() as stack:
        for victim in victims:
            stack.enter_context(fleet.frozen(victim))
        taken = _taken_over(fleet, seconds)
        time.sleep(max(0.0, started + seconds - time.monotonic()))
    return taken


def _taken_over(fleet: BucketFleet, seconds: float = _TAKEN_OVER_WITHIN + 5) -> float:
    """Returns the time until all objects that wait now are gone; at most the seconds."""
    started, there = time.monotonic(), fleet.waiting()
    with suppress(AssertionError):  # the figure shows it
        until(lambda: _is_gone(fleet, there), seconds)
    return time.monotonic() - started


def _is_gone(fleet: BucketFleet, there: set[str]) -> bool:
    time.sleep(0.2)  # a listing is dear
    there &= fleet.waiting()
    return not there
