"""Takes random steps of a producer, an operator and fate; at each rest the promise must hold."""

import os
import signal
import time
from contextlib import ExitStack, suppress

import hypothesis
import psutil
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.chaos.clocks import Clock
from tests.chaos.oracle import FAULTS
from tests.chaos.producers import Dropped
from tests.chaos.rig import Figure, Finding, Rig, Trial
from tests.support import Daemon, until

_STEPS = 30
_SECONDS_TO_REST = 20.0
_FUTURE = 4_000_000_000
_YEAR = 365 * 86_400.0

SIZES = st.sampled_from([1, 12, 150, 3000])


def model(trial: Trial) -> Finding:
    """Does `volume` runs of 30 steps, each with its own database and daemons."""
    finding = Finding()
    rests: list[float] = []
    machine = hypothesis.seed(trial.seed)(_machine(trial, finding, rests))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=trial.volume,
            stateful_step_count=_STEPS,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    finding.figures.append(Figure("longest wait for a rest", max(rests), _SECONDS_TO_REST))
    return finding


def _machine(trial: Trial, finding: Finding, rests: list[float]) -> type[RuleBasedStateMachine]:
    class Machine(_World):
        def __init__(self) -> None:
            super().__init__(trial, finding, rests)

    return Machine


class _World(RuleBasedStateMachine):
    """A folder, a daemon or two, a server, and a clock."""

    def __init__(self, trial: Trial, finding: Finding, rests: list[float]) -> None:
        super().__init__()
        self._trial = trial
        self._finding = finding
        self._rests = rests
        self._stack = ExitStack()
        folder = trial.folder / str(trial.done)
        part = Trial(trial.server, folder, trial.seed + trial.done, 1, trial.share, 60, trial.program)
        folder.mkdir()
        self._clock = Clock(folder)
        clock = self._clock.environment()
        self._rig: Rig = self._stack.enter_context(part.rig(port=None, WORKERS=1, **clock))
        self._stack.enter_context(self._rig.watched())
        self._second = Daemon(self._rig.daemon.folder, self._rig.url, RESCAN_SECONDS=0.5, WORKERS=1, **clock)
        self._bad: list[str] = []

    # A producer ---------------------------------------------------------------------------------------

    @rule(rows=SIZES)
    def drop(self, rows: int) -> None:
        self._rig.drop(rows)

    @rule(rows=SIZES)
    def replace(self, rows: int) -> None:
        """Replaces a file that may be in flight: the first one must be loaded whole or not at all."""
        first = self._rig.journal.draw(self._rig.rng, rows)
        second = self._rig.journal.draw(self._rig.rng, 5, first.kind)
        self._rig.journal.add(first, optional=True)
        self._rig.journal.add(second)
        self._rig.daemon.drop(first.name, first.content())
        self._rig.daemon.drop(first.name, second.content())

    @rule(rows=SIZES, pause=st.sampled_from([0.0, 0.05]))
    def append(self, rows: int, pause: float) -> None:
        file = self._rig.journal.draw(self._rig.rng, rows)
        self._rig.journal.add(file)
        content = file.content()
        for part in (content[: len(content) // 2], content[len(content) // 2 :]):
            with open(self._rig.daemon.incoming / file.name, "ab") as stream:
                stream.write(part)
            time.sleep(pause)

    @rule(data=st.data(), prefix=st.sampled_from(["", "again_"]))
    def drop_again(self, data: st.DataObject, prefix: str) -> None:
        """Drops the same bytes again: under another name, or under the same one if that is free."""
        file = self._any_file(data)
        if file and self._is_free(prefix + file.name):
            self._rig.daemon.drop(prefix + file.name, file.content())

    @rule(data=st.data(), rows=SIZES)
    def reuse_a_name(self, data: st.DataObject, rows: int) -> None:
        """Drops other bytes under the name of a file that has gone."""
        old = self._any_file(data)
        if old and self._is_free(old.name):
            file = self._rig.journal.draw(self._rig.rng, rows, old.kind)
            self._rig.journal.add(file)
            self._rig.daemon.drop(old.name, file.content())

    @rule()
    def drop_a_bad_file(self) -> None:
        self._bad.append(f"vehicles_status_bad{len(self._bad)}.json")
        self._rig.daemon.drop(self._bad[-1], b'{"vehicle_status": [%d}' % len(self._bad))

    @rule()
    def drop_of_the_future(self) -> None:
        """Drops a file like a producer whose clock is far ahead."""
        path = self._rig.drop(3)
        with suppress(FileNotFoundError):  # loaded already
            os.utime(path, (_FUTURE, _FUTURE))

    def _any_file(self, data: st.DataObject) -> Dropped | None:
        files = [
            file for file in self._rig.journal.recent(50) if file.vehicle not in self._rig.journal.optional
        ]
        return data.draw(st.sampled_from(files)) if files else None

    def _is_free(self, name: str) -> bool:
        """Returns whether no file has the name; to replace one that is not loaded yet would lose its rows."""
        return not (self._rig.daemon.incoming / name).exists()

    # An operator, and fate ----------------------------------------------------------------------------

    @rule()
    def kill(self) -> None:
        self._rig.end()
        self._rig.daemon.start(wait=False)

    @rule(rows=SIZES, pause=st.sampled_from([0.0, 0.02, 0.05]))
    def kill_a_worker(self, rows: int, pause: float) -> None:
        """Kills the workers while they load a file, or just before."""
        self._rig.drop(rows)
        time.sleep(pause)
        with suppress(psutil.NoSuchProcess):
            for worker in self._rig.workers():
                worker.kill()

    @rule()
    def second_daemon(self) -> None:
        if self._second.process is None:
            self._second.start(wait=False)
        else:
            self._end_second()

    @precondition(lambda self: self._is_up)
    @rule(how=st.sampled_from([signal.SIGINT, signal.SIGQUIT]), is_noticed=st.booleans())
    def database_down(self, how: signal.Signals, is_noticed: bool) -> None:
        before = self._outages()
        self._trial.server.stop(how)
        if is_noticed:
            self._rig.drop(1)
            with suppress(AssertionError):  # the daemon has just started, or the other one has the file
                until(lambda: self._outages() > before, 2)

    @precondition(lambda self: not self._is_up)
    @rule()
    def database_up(self) -> None:
        self._trial.server.start("fsync=off")

    @rule(seconds=st.sampled_from([-_YEAR, -3600.0, -30.0, 0.0, 30.0, 3600.0, _YEAR]))
    def set_clock(self, seconds: float) -> None:
        self._clock.set(seconds)

    @rule(seconds=st.sampled_from([0.05, 0.4]))
    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def _outages(self) -> int:
        return self._rig.daemon.log().count("waiting for the database")

    @property
    def _is_up(self) -> bool:
        return self._trial.server.process is not None

    def _end_second(self) -> None:
        process, self._second.process = self._second.process, None
        if process is not None:
            process.kill()
            process.wait(20)

    # Rest ---------------------------------------------------------------------------------------------

    @rule()
    def rest(self) -> None:
        self._judge()

    def teardown(self) -> None:
        found = self._judge()
        self._end_second()
        self._finding.counts += found.counts
        self._stack.close()
        self._trial.done += 1

    def _judge(self) -> Finding:
        """Starts everything again and waits until nothing is left to do: now the promise must hold."""
        if not self._is_up:
            self.database_up()
        started = time.monotonic()
        self._rig.revive()
        self._rig.drain()
        self._rests.append(time.monotonic() - started)
        looks = self._rig.reader.looks
        until(lambda: self._rig.reader.looks > looks, 20, "the reader has looked at the final rows")
        found = self._rig.finding()
        wrong = [f"{found.counts[fault]} {fault}" for fault in FAULTS if found.counts[fault]]
        wrong += [f"{name} is not in failed/" for name in self._bad if not self._has_failed(name)]
        self._finding.complaints += [
            f"run {self._trial.done}: {fault}" for fault in (*wrong, *found.complaints)
        ]
        return found

    def _has_failed(self, name: str) -> bool:
        return (self._rig.daemon.failed / name).exists()
