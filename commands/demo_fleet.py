"""Simulates what a fleet of vehicles sends: documents of detections and of status reports."""

from bisect import bisect
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, combinations
from random import Random
from typing import Any
from uuid import UUID

Document = dict[str, list[dict[str, Any]]]

HOUR = 3_600_000  # in milliseconds; all times here are milliseconds since 1970
DAY = 24 * HOUR
DENSEST_DAY = 10_000_000  # records; a history of more records covers more days
#: The traffic of each hour of the day (UTC): people drive to work in the morning and home in the evening.
TRAFFIC = (2, 1, 1, 1, 2, 5, 12, 22, 24, 14, 10, 10, 12, 11, 10, 12, 18, 25, 23, 15, 9, 6, 4, 3)
ELAPSED = tuple(accumulate(TRAFFIC, initial=0))
DRIVING = tuple(0.45 * traffic / max(TRAFFIC) for traffic in TRAFFIC)  # share of the vehicles
LARGEST = {"pedestrians": 12, "cars": 20, "trucks": 5, "signs": 8, "obstacles": 3}
SCENES = [scene for size in range(1, 6) for scene in combinations(LARGEST.items(), size)]


def traffic_until(time: int) -> float:
    days, since = divmod(time, DAY)
    hour, rest = divmod(since, HOUR)
    return days * ELAPSED[24] + ELAPSED[hour] + TRAFFIC[hour] * rest / HOUR


def time_of(traffic: float) -> int:
    days, since = divmod(traffic, ELAPSED[24])
    hour = bisect(ELAPSED, since) - 1
    return int((days * 24 + hour + (since - ELAPSED[hour]) / TRAFFIC[hour]) * HOUR)


@dataclass(frozen=True)
class Clock:
    """The time of the n-th record.

    The first `history` records end at `end` and follow the traffic; later ones are `step` apart.
    """

    end: int
    history: int
    step: float

    def at(self, record: float) -> int:
        if record >= self.history:
            return self.end + int((record - self.history) * self.step)
        days = (1 + self.history // DENSEST_DAY) * (1 - record / self.history)
        return time_of(traffic_until(self.end) - days * ELAPSED[24])


class Fleet:
    """Vehicles that drive, park and rarely crash; all report every change, and only driving ones detect."""

    def __init__(self, seed: int | None, vehicles: int, clock: Clock) -> None:
        self._random, self._clock, self._vehicles = Random(seed), clock, vehicles
        self._records, self._now = 0, clock.at(0)
        ids = [UUID(int=self._random.getrandbits(128), version=4).hex for _ in range(vehicles)]
        first = max(1, int(self._wanted()))
        groups = {"driving": ids[:first], "parking": ids[first:], "accident": []}
        self._groups = {status: deque(group) for status, group in groups.items()}

    def detections(self, records: int) -> Document:
        events, end = [], self._records + records
        while self._records < end:
            events.append(self._event(end - self._records))
        return {"objects_detection_events": events}

    def statuses(self, records: int) -> Document:
        return {"vehicle_status": [self._report() for _ in range(records)]}

    def _event(self, at_most: int) -> dict[str, Any]:
        scene, chance = self._random.choice(SCENES)[:at_most], self._random.random
        vehicle, time = self._random.choice(self._groups["driving"]), self._pass(len(scene))
        seen = [{"object_type": name, "object_value": 1 + int(most * chance() ** 2)} for name, most in scene]
        return {"vehicle_id": vehicle, "detection_time": time, "detections": seen}

    def _report(self) -> dict[str, Any]:
        time = self._pass(1)
        before, after = self._change()
        # One vehicle always drives, because only driving ones detect.
        if len(self._groups[before]) <= (before == "driving"):
            before = after = "driving"
        vehicle = self._groups[before].popleft()
        self._groups[after].append(vehicle)
        return {"vehicle_id": vehicle, "report_time": time, "status": after}

    def _change(self) -> tuple[str, str]:
        chance = self._random.random()
        if chance < 0.01:
            return ("driving", "accident") if chance < 0.003 else ("accident", "parking")
        enough = len(self._groups["driving"]) > self._wanted()
        before, after = ("driving", "parking") if enough else ("parking", "driving")
        return (before, before if chance < 0.3 else after)

    def _wanted(self) -> float:
        return self._vehicles * DRIVING[self._now % DAY // HOUR]

    def _pass(self, records: int) -> str:
        """Returns a time later than all earlier ones, so that no key is repeated."""
        self._now = max(self._now + 1, self._clock.at(self._records + self._random.random() * records))
        self._records += records
        instant = datetime(1970, 1, 1) + timedelta(milliseconds=self._now)
        return instant.isoformat(timespec="milliseconds") + "Z"
