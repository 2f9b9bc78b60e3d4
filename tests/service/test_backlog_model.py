"""The backlog against a simple model: random events, scans, batches and outcomes, and a clock of its own."""

from typing import get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from processing.batch import FileTask, Outcome, State, Undisposed
from service.backlog import BATCH_BYTES, Backlog
from service.known_files import KnownFile, Phase
from service.waiting import WaitingPolicy
from sources.local_file import FileIdentity

SIZES = {"a": 1, "b": 1, "c": 1, "d": BATCH_BYTES // 2, "e": BATCH_BYTES + 1}
NAMES = st.sampled_from(sorted(SIZES))
LONGEST_DELAY = 5.0
LONGEST_SUSPENSE = 60.0
SECONDS = st.sampled_from([0.1, 3.0, LONGEST_SUSPENSE])
IDENTITIES = st.builds(FileIdentity, *map(st.just, (1, 2)), st.integers(1, 2), st.just(4), st.integers(5, 6))


def outcomes(*states: State, undisposed: st.SearchStrategy[Undisposed | None]) -> st.SearchStrategy[Outcome]:
    return st.builds(
        Outcome,
        name=st.just(""),
        state=st.sampled_from(states),
        identity=IDENTITIES,
        seconds=SECONDS,
        undisposed=undisposed,
        hides_writers=st.booleans(),
    )


OUTCOMES = st.one_of(
    outcomes("waiting", "loaded", "duplicate", undisposed=st.none() | st.builds(Undisposed, IDENTITIES)),
    outcomes("failed", "contended", "retry_alone", "gone", undisposed=st.none()),
)


class BacklogMachine(RuleBasedStateMachine):
    """Workers that do anything to a folder of five names; names are tracked here in sets, times in dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        policy = WaitingPolicy(settle_seconds=2, longest_delay=LONGEST_DELAY, quiet_seconds=1)
        self.backlog = Backlog(policy, clock=lambda: self.now)
        self.folder: set[str] = set()
        self.known: set[str] = set()
        self.flights: list[list[FileTask]] = []
        self.alone: set[str] = set()
        self.apart: set[str] = set()
        self.heard_again: set[str] = set()
        self.not_before: dict[str, float] = {}  # for those that are apart: an event does not hurry them
        self.not_after: dict[str, float] = {}

    def records(self) -> list[KnownFile]:
        return list(self.backlog._files.by_name.values())

    def in_flight(self) -> list[str]:
        return [task.name for batch in self.flights for task in batch]

    # What happens to the folder -------------------------------------------------------------------

    @rule(name=NAMES)
    def arrives(self, name: str) -> None:
        self.folder.add(name)
        self.known.add(name)
        self.backlog.on_event(name)
        if name in self.in_flight():
            self.heard_again.add(name)
        elif name not in self.apart:
            self.not_after[name] = self.now

    @rule(name=NAMES)
    def arrives_unnoticed(self, name: str) -> None:
        self.folder.add(name)

    @rule()
    def all_arrive(self) -> None:
        self.folder |= set(SIZES)
        self.is_scanned()

    @rule(name=NAMES)
    def is_taken_by_somebody_else(self, name: str) -> None:
        self.folder.discard(name)

    @rule()
    def is_scanned(self) -> None:
        self.backlog.keep_only(sorted(self.folder))
        self.backlog.on_scan(sorted(self.folder))
        for name in self.known - self.folder - set(self.in_flight()):
            self.forget(name)
        for name in self.folder - self.known:
            self.not_after[name] = self.now
        self.known |= self.folder

    @rule(seconds=st.sampled_from([0.2, 1.0, LONGEST_DELAY, LONGEST_SUSPENSE]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def the_next_is_due(self) -> None:
        if self.backlog.next_due() < float("inf"):
            self.now = max(self.now, self.backlog.next_due())

    # Batches go out -------------------------------------------------------------------------------

    @rule(share=st.integers(1, 3), others_first=st.booleans())
    def batch_goes_out(self, share: int, others_first: bool) -> None:
        self.next_batch(share, others_first)

    def next_batch(self, share: int = 1, others_first: bool = False) -> list[FileTask]:
        batch = self.backlog.batch(share, self.size_of, others_first=others_first)
        names = [task.name for task in batch]
        assert len(set(names)) == len(names) and not set(names) & set(self.in_flight()), "handed out twice"
        assert set(names) <= self.known & self.folder
        assert len(batch) == 1 or not set(names) & (self.alone | self.apart), "held ones go alone"
        assert not (set(names) & self.apart and set(self.in_flight()) & self.apart), "one held at a time"
        assert all(self.now >= self.not_before.get(name, self.now) for name in names), "too early"
        if batch:
            self.flights.append(batch)
        for name in self.known - {file.name for file in self.records()}:
            assert name not in self.folder, "lost"
            self.forget(name)
        return batch

    def size_of(self, name: str) -> int | None:
        return SIZES[name] if name in self.folder else None

    @rule()
    def all_that_is_there_goes_out(self) -> None:
        while self.next_batch():
            pass
        left = self.known & self.folder - set(self.in_flight())
        if set(self.in_flight()) & self.apart:
            left -= self.apart
        assert [name for name in left if self.not_after[name] <= self.now] == [], "does not come out"

    # They come back -------------------------------------------------------------------------------

    def take_back(self, index: int) -> list[FileTask]:
        batch = self.flights.pop(index % len(self.flights))
        for task in batch:
            self.not_before.pop(task.name, None)
            self.not_after[task.name] = self.now
        return batch

    def take_back_untried(self, index: int) -> list[FileTask]:
        batch = self.take_back(index)
        self.heard_again -= {task.name for task in batch}
        return batch

    def suspend(self, name: str, seconds: float) -> None:
        self.not_before[name] = self.now + seconds
        self.not_after[name] = self.now + LONGEST_SUSPENSE

    def forget(self, name: str) -> None:
        for names in (self.known, self.alone, self.apart):
            names.discard(name)
        for times in (self.not_before, self.not_after):
            times.pop(name, None)

    @precondition(lambda self: self.flights)
    @rule(index=st.integers(0, 4), data=st.data())
    def comes_back(self, index: int, data: st.DataObject) -> None:
        for task in self.take_back(index):
            outcome = replace(data.draw(OUTCOMES), name=task.name)
            heard_again = task.name in self.heard_again
            self.heard_again.discard(task.name)
            tries = self.backlog.record_outcome(outcome)
            waits = outcome.state in ("waiting", "contended") or outcome.undisposed is not None
            assert (tries > 0) == waits
            if waits:
                self.waits(outcome, heard_again)
            else:
                self.ends(outcome, heard_again)

    def waits(self, outcome: Outcome, heard_again: bool) -> None:
        if outcome.state == "contended":
            self.apart.add(outcome.name)
            self.suspend(outcome.name, outcome.seconds)
        elif outcome.name in self.apart or not heard_again:
            self.not_after[outcome.name] = self.now + LONGEST_DELAY

    def ends(self, outcome: Outcome, heard_again: bool) -> None:
        self.forget(outcome.name)
        if outcome.state == "retry_alone":
            self.alone.add(outcome.name)
        if outcome.state == "retry_alone" or heard_again:
            self.known.add(outcome.name)
            self.not_after[outcome.name] = self.now
        else:
            self.folder.discard(outcome.name)

    @precondition(lambda self: self.flights)
    @rule(index=st.integers(0, 4))
    def is_requeued(self, index: int) -> None:
        self.backlog.requeue(self.take_back_untried(index))

    @precondition(lambda self: self.flights)
    @rule(index=st.integers(0, 4), seconds=SECONDS)
    def is_suspected(self, index: int, seconds: float) -> None:
        batch = self.take_back_untried(index)
        self.apart |= {task.name for task in batch}
        pause = self.backlog.suspect(batch, "no", seconds).pause
        if pause:
            assert pause >= seconds or self.backlog._files.by_name[batch[0].name].tries == 1
            self.suspend(batch[0].name, pause)

    @precondition(lambda self: self.flights)
    @rule(index=st.integers(0, 4), seconds=SECONDS)
    def meets_a_setback(self, index: int, seconds: float) -> None:
        """Which of the files are held back then depends on counts: the model asks."""
        batch = self.take_back_untried(index)
        self.backlog.record_setback(batch, seconds)
        for file in [self.backlog._files.by_name[task.name] for task in batch]:
            if file.is_alone:
                self.alone.add(file.name)
            if file.phase == "waiting":
                assert file.is_apart and len(batch) == 1
                self.apart.add(file.name)
                self.suspend(file.name, seconds)

    @precondition(lambda self: self.flights)
    @rule(index=st.integers(0, 4), is_killed=st.booleans())
    def crashes(self, index: int, is_killed: bool) -> None:
        batch = self.take_back_untried(index)
        self.alone |= {task.name for task in batch}
        next_try = self.backlog.record_crash(batch, "died", is_killed=is_killed)
        if next_try.pause:
            self.not_after[batch[0].name] = self.now + LONGEST_DELAY

    @rule()
    def others_are_loaded(self) -> None:
        self.backlog.note_loaded()

    # What is always so ----------------------------------------------------------------------------

    @invariant()
    def no_name_is_lost_or_made_up(self) -> None:
        assert {file.name for file in self.records()} == self.known
        assert len(self.backlog) == len(self.known)

    @invariant()
    def each_record_is_in_the_queue_of_its_phase_and_in_no_other(self) -> None:
        queued: list[KnownFile] = []
        for phase in get_args(Phase):
            queue = self.backlog._files.queues[phase]
            assert all((file.name, file.phase) == (name, phase) for name, file in queue.items())
            queued += queue.values()
        assert sorted(map(id, queued)) == sorted(map(id, self.records()))
        assert sorted(self.backlog._files.queues["in flight"]) == sorted(self.in_flight())

    @invariant()
    def the_crowd_is_counted(self) -> None:
        assert self.backlog._files.crowd == sum(file.has_waited for file in self.records())

    def teardown(self) -> None:
        """If all goes well from now on, every file is handed out and loaded within two pauses."""
        for _ in range(2 * len(SIZES)):
            for batch in self.flights:
                for task in batch:
                    self.backlog.record_outcome(Outcome(task.name, "loaded"))
            self.flights = [batch for batch in [self.backlog.batch(1, SIZES.get)] if batch]
            self.now += 2 * LONGEST_SUSPENSE
        assert len(self.backlog) == 0


TestBacklogModel = BacklogMachine.TestCase
TestBacklogModel.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
