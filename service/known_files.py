"""Known files: one record for each, in exactly one queue, which is that of its phase."""

import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from processing.batch import Undisposed
from processing.source import Identity

#: fresh: an event reported it, and it comes first; ready: it may be loaded; held: it may be loaded, but only
#: alone and beside no other such file; in flight: a worker has it; waiting: it is not tried before it is due.
Phase = Literal["fresh", "ready", "held", "in flight", "waiting"]

#: The pause before the second try, in seconds; it grows from there.
FIRST_DELAY = 0.2


@dataclass(slots=True, eq=False)
class KnownFile:
    """The record of a file: all that the backlog knows of it.

    identity: as the last try that had to wait saw it, unchanged since `since`. is_alone: it is sent in a
    batch of its own. is_apart: it is held where others are ready, since it might keep a worker for long.
    heard_again: an event came while it was in flight. tried_at: when it was last put in flight. listed: the
    identity that a listing told, if it did.
    """

    name: str
    phase: Phase
    identity: Identity | None = None
    since: float = 0.0
    delay: float = FIRST_DELAY
    tries: int = 0
    due: float = 0.0
    tried_at: float = 0.0
    undisposed: Undisposed | None = None
    is_alone: bool = False
    is_apart: bool = False
    heard_again: bool = False
    has_waited: bool = False
    listed: Identity | None = None


class KnownFiles:
    """The records by name, and by phase in the order of their arrival there; they change only here."""

    def __init__(self) -> None:
        self._by_name: dict[str, KnownFile] = {}
        self._queues: dict[Phase, dict[str, KnownFile]] = {phase: {} for phase in get_args(Phase)}
        self.by_name: Mapping[str, KnownFile] = self._by_name
        self.queues: Mapping[Phase, Mapping[str, KnownFile]] = self._queues
        # May hold times that are no longer true: they are passed over when they come.
        self._due: list[tuple[float, str]] = []
        self.crowd = 0  # files that have waited: kept as a number, since it is asked for each of them

    def add(self, name: str, phase: Phase) -> KnownFile:
        """Makes the record of a file that is not known."""
        file = self._by_name[name] = self._queues[phase][name] = KnownFile(name, phase)
        return file

    def move(self, file: KnownFile, phase: Phase) -> None:
        """Puts a file at the end of a queue; one that is there already keeps its place."""
        if file.phase != phase:
            del self._queues[file.phase][file.name]
            file.phase = phase
            self._queues[phase][file.name] = file

    def wait(self, file: KnownFile, due: float) -> None:
        """Lets a file wait until it is due."""
        self.move(file, "waiting")
        self.crowd += not file.has_waited
        file.has_waited = True
        file.due = due
        heapq.heappush(self._due, (due, file.name))

    def next_due(self) -> float:
        """Returns when the next waiting file is due, or earlier; infinity if none waits."""
        return self._due[0][0] if self._due else math.inf

    def take_due(self, now: float) -> Iterator[KnownFile]:
        """Yields each waiting file that is due; the caller moves it."""
        while self._due and self._due[0][0] <= now:
            due, name = heapq.heappop(self._due)
            file = self._queues["waiting"].get(name)
            if file is not None and file.due == due:
                yield file

    def forget(self, file: KnownFile) -> None:
        """Drops a record and all that it knows."""
        del self._queues[file.phase][file.name], self._by_name[file.name]
        self.crowd -= file.has_waited
