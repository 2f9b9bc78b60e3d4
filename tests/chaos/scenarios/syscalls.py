"""Kills ingest, replays and recall at every system call or request, or makes the calls of the ingest fail."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from errno import EACCES, EINTR, EIO, EMFILE, ENOSPC, errorcode
from random import Random
from threading import Lock

from tests.chaos.buckets import BucketRig
from tests.chaos.kills import FailRig, KillRig, Point
from tests.chaos.nursery import Ended
from tests.chaos.recalls import RecallRig
from tests.chaos.replays import ReplayRig
from tests.chaos.rig import Figure, Finding, Trial, prepare
from tests.chaos.stream_kills import ConsumeRig, PublishRig

ERRORS = (EIO, ENOSPC, EACCES, EMFILE, EINTR)

#: Calls that can't fail, or that end a thread.
_UNFAILING = {"exit", "exit_group", "getpid", "gettid", "getuid", "geteuid"}

#: Calls of the C library for memory, locks and threads. If one fails, the library ends the process, or Python
#: is out of memory.
_OF_THE_RUNTIME = {"brk", "mmap", "munmap", "mprotect", "madvise", "futex", "clone3", "rt_sigaction"}

#: Calls after whose failure libpq and the server may wait for each other; the daemon would end the worker.
_WAITING = {"sendto", "recvfrom", "poll", "fcntl"}

#: Time limits of a run that must end, and of one that may hang.
_SECONDS, _PATIENCE = 20.0, 1.0

#: A line about a file that is done, and one about an error that is not ours: the daemon logs only its type.
_DONE = re.compile(r": (loaded|duplicate)$")
_FOREIGN = re.compile(r"(?!DatabaseUnavailable|NotReady)\w+(Error|Exception|Misconfigured): ")

#: Points that are tried for the second of two kills; a recovery may end before it reaches one of them.
_CANDIDATES = 8

#: Per cent of the kills that may miss, because not every run waits for the same locks.
_MAY_MISS = 10.0


class Strike:
    """A fault that is injected into a run of the ingest."""

    def at(self, rig: KillRig, finding: Finding) -> bool:
        """Runs the ingest with the fault; returns whether the run reached it."""
        raise NotImplementedError


Strikes = Callable[[list[Point], Random], Iterator[Strike]]


def kill_points(trial: Trial) -> Finding:
    """Kills at each point, or at `volume` of them, in random order; then restarts."""
    return _campaign(trial, KillRig, _kills)


def kill_pairs(trial: Trial) -> Finding:
    """Kills, and kills again during the recovery."""
    return _campaign(trial, KillRig, _pairs)


def replay_points(trial: Trial) -> Finding:
    """Kills at each point of a replay of failed files and rejected records; then replays again."""
    return _campaign(trial, ReplayRig, _kills)


def recall_points(trial: Trial) -> Finding:
    """Kills at each point of a recall of all files; then recalls again, and loads the files again."""
    return _campaign(trial, RecallRig, _kills)


def bucket_points(trial: Trial) -> Finding:
    """Kills before and after each request to the bucket and each COMMIT; then restarts."""
    return _campaign(trial, BucketRig, _kills)


def bucket_pairs(trial: Trial) -> Finding:
    """Does so, and kills again during the recovery."""
    return _campaign(trial, BucketRig, _pairs)


def consume_points(trial: Trial) -> Finding:
    """Kills a consumer before and after its requests to the broker and each COMMIT; then restarts."""
    return _campaign(trial, ConsumeRig, _kills)


def publish_points(trial: Trial) -> Finding:
    """Kills a publisher before and after its requests, and at its acts on files; then restarts."""
    return _campaign(trial, PublishRig, _kills)


def failing_calls(trial: Trial) -> Finding:
    """Makes a call fail, once or from then on; then runs without faults."""
    return _campaign(trial, FailRig, _failures)


@dataclass(frozen=True)
class Kill(Strike):
    point: Point

    def __str__(self) -> str:
        return f"killed at {self.point}"

    def at(self, rig: KillRig, finding: Finding) -> bool:
        return _kill(rig, self.point, finding)


@dataclass(frozen=True)
class TwoKills(Strike):
    """A kill, and a second one at the first of several points that the recovery reaches."""

    first: Point
    then: Sequence[Point]

    def __str__(self) -> str:
        return f"killed at {self.first}, then at one of {', '.join(map(str, self.then))}"

    def at(self, rig: KillRig, finding: Finding) -> bool:
        return any(self._at(rig, second, finding) for second in self.then)

    def _at(self, rig: KillRig, second: Point, finding: Finding) -> bool:
        rig.reset()
        return _kill(rig, self.first, finding) and _kill(rig, second, finding)


@dataclass(frozen=True)
class Failure(Strike):
    """A call that fails with an error, once or from then on."""

    point: Point
    error: int
    for_ever: bool

    def __str__(self) -> str:
        return f"{errorcode[self.error]} {'from' if self.for_ever else 'once at'} {self.point} on"

    def at(self, rig: KillRig, finding: Finding) -> bool:
        ended = rig.fail_at(
            self.point, errorcode[self.error], for_ever=self.for_ever, seconds=self._patience()
        )
        finding.counts["torn"] += rig.torn()
        finding.complaints += [f"{self}: {complaint}" for complaint in self._complaints(rig, ended)]
        return True

    def _patience(self) -> float:
        return _PATIENCE if self._may_hang else _SECONDS

    @property
    def _may_hang(self) -> bool:
        return self.point.call in _WAITING | _OF_THE_RUNTIME or (self.for_ever and self.error == EINTR)

    def _complaints(self, rig: KillRig, ended: Ended) -> Iterator[str]:
        """Yields a complaint if the run hangs, or ends in another way than usual without naming the cause."""
        if ended.hung:
            yield from () if self._may_hang else ["the run hangs"]
        if ended.hung or self.point.call in _OF_THE_RUNTIME:
            return
        output = [
            line for line in ended.output.splitlines() if line not in rig.usual and not _DONE.search(line)
        ]
        yield from (f"it ends the worker: {line}" for line in output if _FOREIGN.match(line))
        is_silent = not any(self._is_named_in(line) for line in output)
        if (output or ended.code) and is_silent:
            yield f"it ends with {ended.code} and does not name the cause: {output}"

    def _is_named_in(self, line: str) -> bool:
        return os.strerror(self.error) in line or line.startswith("DatabaseUnavailable: ")


def _kill(rig: KillRig, point: Point, finding: Finding) -> bool:
    is_hit = rig.kill_at(point)
    finding.counts["torn"] += rig.torn()
    return is_hit


def _kills(points: list[Point], rng: Random) -> Iterator[Strike]:
    return map(Kill, rng.sample(points, len(points)))


def _pairs(points: list[Point], rng: Random) -> Iterator[Strike]:
    while True:
        yield TwoKills(rng.choice(points), rng.sample(points, _CANDIDATES))


def _failures(points: list[Point], rng: Random) -> Iterator[Strike]:
    """Yields failures: each point with each error, once or from then on in turn; the first ones both ways."""
    chosen = [
        Failure(point, error, for_ever)
        for point in points
        if point.call not in _UNFAILING
        for turn, error in enumerate(ERRORS, point.n)
        for for_ever in (False, True)
        if point.n == 1 or for_ever == turn % 2
    ]
    return iter(rng.sample(chosen, len(chosen)))


class _Todo:
    """A queue of strikes for several rigs."""

    def __init__(self, trial: Trial, strikes: Iterator[Strike]) -> None:
        self._left = zip(trial.rounds(), strikes, strict=False)
        self._lock = Lock()

    def __iter__(self) -> Iterator[Strike]:
        while True:
            with self._lock:
                found = next(self._left, None)
            if found is None:
                return
            yield found[1]


def _campaign(trial: Trial, make_rig: type[KillRig], arranged: Strikes) -> Finding:
    """Runs the strikes, with one rig for each processor; all of them if there is no volume."""
    with ExitStack() as stack:
        rigs = [stack.enter_context(_rig(trial, make_rig, i)) for i in range(os.cpu_count() or 1)]
        strikes = arranged(rigs[0].trace(), trial.rng)
        if not trial.volume:
            all_of_them = list(strikes)
            trial.take(len(all_of_them))
            strikes = iter(all_of_them)
        todo = _Todo(trial, strikes)
        with ThreadPoolExecutor(len(rigs)) as pool:
            return _all_of(list(pool.map(lambda rig: _struck(rig, todo), rigs)))


@contextmanager
def _rig(trial: Trial, make_rig: type[KillRig], number: int) -> Iterator[KillRig]:
    with trial.server.database() as database:
        prepare(database, is_ours=True)
        with make_rig(trial.folder / f"incoming{number}", database) as rig:
            yield rig


def _struck(rig: KillRig, todo: _Todo) -> Finding:
    finding = Finding()
    for strike in todo:
        rig.reset()
        finding.counts["hit" if strike.at(rig, finding) else "missed"] += 1
        ended = rig.restart()
        if ended.code:
            finding.complaints.append(f"{strike}: then the restart: {ended}")
        _compare(rig, strike, finding)
    return finding


def _all_of(findings: Sequence[Finding]) -> Finding:
    counts = sum((finding.counts for finding in findings), Counter[str]())
    missed = Figure(
        "missed", 100 * counts["missed"] / max(1, counts["hit"] + counts["missed"]), _MAY_MISS, "%"
    )
    return Finding(counts, [missed], [complaint for finding in findings for complaint in finding.complaints])


def _compare(rig: KillRig, strike: Strike, finding: Finding) -> None:
    """Compares the tables, the folder and failed/ with those of the run without faults."""
    found = rig.rows()
    for table, expected in rig.expected.items():
        there, due = Counter(found[table]), Counter(expected)
        finding.counts["lost"] += (due - there).total()
        finding.counts["doubled" if table != "ingested_files" else "ledger"] += (there - due).total()
    finding.counts["wrong deletes"] += len(set(rig.quarantined) - set(rig.failed()))
    finding.counts["good failed"] += len(set(rig.failed()) - set(rig.quarantined))
    if rig.left() or found != rig.expected or rig.failed() != rig.quarantined:
        finding.complaints.append(f"{strike}: left {rig.left()}, failed {rig.failed()}")
