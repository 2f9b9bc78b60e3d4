"""Steps by chance, of a producer, an operator and fate; at rest the promise must hold."""

import os
import signal
import time
from contextlib import ExitStack

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.chaos.oracle import FAULTS
from tests.chaos.rig import Finding, Rig, Trial
from tests.support import Daemon

_STEPS = 30
_FUTURE = 4_000_000_000

SIZES = st.sampled_from([1, 12, 150, 3000])


def model(trial: Trial) -> Finding:
    """The volume is runs of 30 steps, each in a database and with daemons of its own."""
    finding = Finding()
    machine = hypothesis.seed(trial.seed)(_machine(trial, finding))
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
    return finding


def _machine(trial: Trial, finding: Finding) -> type[RuleBasedStateMachine]:
    class Machine(_World):
        def __init__(self) -> None:
            super().__init__(trial, finding)

    return Machine


class _World(RuleBasedStateMachine):
    """A folder, a daemon or two, and a server."""

    def __init__(self, trial: Trial, finding: Finding) -> None:
        super().__init__()
        self._trial = trial
        self._finding = finding
        self._stack = ExitStack()
        folder = trial.folder / str(trial.done)
        part = Trial(trial.server, folder, trial.seed + trial.done, 1, trial.share, 60, trial.program)
        folder.mkdir()
        self._rig: Rig = self._stack.enter_context(part.rig(WORKERS=1))
        self._stack.enter_context(self._rig.watched())
        self._second = Daemon(self._rig.daemon.folder, self._rig.url, RESCAN_SECONDS=0.5, WORKERS=1)

    @rule(rows=SIZES)
    def drop(self, rows: int) -> None:
        self._rig.drop(rows)

    @rule(rows=SIZES)
    def replace(self, rows: int) -> None:
        """Under the name of a file that may be in hand: that one is loaded whole, or not at all."""
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

    @rule()
    def drop_of_the_future(self) -> None:
        """By a producer whose clock is far ahead."""
        path = self._rig.drop(3)
        try:
            os.utime(path, (_FUTURE, _FUTURE))
        except FileNotFoundError:
            return  # loaded already

    @rule()
    def kill(self) -> None:
        self._rig.end()
        self._rig.daemon.start(wait=False)

    @rule()
    def second_daemon(self) -> None:
        if self._second.process is None:
            self._second.start(wait=False)
        else:
            self._end_second()

    @rule(how=st.sampled_from([signal.SIGINT, signal.SIGQUIT]))
    def restart_server(self, how: signal.Signals) -> None:
        self._trial.server.stop(how)
        self._trial.server.start("fsync=off")

    def teardown(self) -> None:
        """Rest."""
        self._rig.revive()
        self._rig.drain()
        self._end_second()
        found = self._rig.finding()
        self._finding.counts += found.counts
        wrong = [fault for fault in FAULTS if found.counts[fault]]
        self._finding.complaints += [
            f"run {self._trial.done}: {fault}" for fault in (*wrong, *found.complaints)
        ]
        self._stack.close()
        self._trial.done += 1

    def _end_second(self) -> None:
        process, self._second.process = self._second.process, None
        if process is not None:
            process.kill()
            process.wait(20)
