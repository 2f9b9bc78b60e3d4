"""The number of workers: one for each usable CPU, as far as the server has connections for them."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from config import Settings

#: A worker has one connection, and a second one for the moment in which it makes partitions.
_CONNECTIONS_OF_WORKER = 2

#: Connections that are left to others, at most; of a small number, a quarter. The daemon's own other threads
#: take two of them, each command one or two.
_OTHERS = 10

#: Workers, unless more are asked for.
_MOST_WORKERS = 64

_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def most_workers(connections: int) -> int:
    """Returns how many workers so many connections are enough for; at least one."""
    others = min(_OTHERS, connections // 4)
    return max(1, (connections - others) // _CONNECTIONS_OF_WORKER)


def wanted_workers(settings: Settings) -> int:
    """Returns the number of workers, whether or not the server has connections for so many."""
    return settings.workers or min(usable_cpus(), _MOST_WORKERS)


def usable_cpus(group: Path = _GROUP, groups: Path = _GROUPS) -> int:
    """Returns the number of CPUs that this process may use: its affinity, and the quota of its containers."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cpus, *(math.ceil(quota) for quota in _quotas(group, groups))]))


def _quotas(group: Path, groups: Path) -> Iterator[float]:
    """Yields the quota of the control group (version 2) and of each above it, in CPUs."""
    with suppress(OSError, UnicodeDecodeError):
        for line in group.read_text().splitlines():
            if line.startswith("0::"):
                folder = groups / line.removeprefix("0::").strip("/")
                for place in (folder, *folder.parents):
                    if place.is_relative_to(groups):
                        yield from _quota(place / "cpu.max")


def _quota(file: Path) -> Iterator[float]:
    with suppress(OSError, ValueError, ZeroDivisionError):  # no quota: the root has no file, others say "max"
        quota, period = map(int, file.read_text().split())
        yield quota / period
