"""The backlog: every name is in one place, no file is forgotten, none starves the others."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import service.backlog
from processing.batch import FileTask, Outcome, State, Undisposed
from service.backlog import BATCH_BYTES, BATCH_FILES, Backlog
from service.events import NextTry
from service.suspects import (
    MAX_CRASHES,
    MAX_KILLS,
    MAX_LONE_STRIKES,
    MAX_SETBACKS,
    MAX_STRIKES,
    Suspects,
)
from sources.local_file import FileIdentity

STAMP = FileIdentity(1, 2, 3, 4, 5)
OTHER = FileIdentity(1, 2, 99, 4, 6)


class Clock:
    """The backlog's clock, which goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def go_to(self, moment: float) -> float:
        """How long that took."""
        seconds, self.now = moment - self.now, moment
        return seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(service.backlog, "time", clock)
    return clock


@pytest.fixture
def backlog() -> Backlog:
    return Backlog(settle_seconds=60, longest_delay=5)


def names(batch: Iterable[FileTask]) -> list[str]:
    return [work.name for work in batch]


def take(backlog: Backlog, share: int = 1, size: int | None = 10) -> list[FileTask]:
    return backlog.batch(share, lambda name: size)


def come_back(backlog: Backlog, state: str, identity: FileIdentity | None = STAMP, reason: str = "") -> None:
    """Whatever is ready is taken and comes back so."""
    for work in take(backlog):
        backlog.settle(Outcome(work.name, state, reason, identity=identity))  # type: ignore[arg-type]


def numbered(count: int) -> list[str]:
    return [f"{number:06}.json" for number in range(count)]


def test_an_empty_backlog_has_no_batch_and_nothing_due(backlog: Backlog) -> None:
    assert (take(backlog), len(backlog), backlog.next_due()) == ([], 0, float("inf"))


def test_what_is_seen_is_handed_out_once(backlog: Backlog) -> None:
    backlog.on_scan(["a", "b"])
    assert names(take(backlog)) == ["a", "b"]
    backlog.on_scan(["a", "b"])
    assert take(backlog) == []
    assert len(backlog) == 2


def test_what_is_heard_comes_before_what_was_seen(backlog: Backlog) -> None:
    backlog.on_scan(numbered(2000))
    backlog.on_event("new")
    backlog.on_event("001999.json")
    assert names(take(backlog))[:2] == ["new", "001999.json"]


def test_a_stream_of_news_does_not_starve_what_was_seen(backlog: Backlog) -> None:
    backlog.on_scan(["old"])
    for name in numbered(10_000):
        backlog.on_event(name)
    assert "old" in names(take(backlog))


def test_workers_share_what_is_there_equally(backlog: Backlog) -> None:
    backlog.on_scan(numbered(100))
    assert [len(take(backlog, share=4)) for _ in range(2)] == [25, 19]


def test_a_batch_is_bounded_in_files(backlog: Backlog) -> None:
    backlog.on_scan(numbered(BATCH_FILES + 1))
    assert [len(take(backlog)) for _ in range(3)] == [BATCH_FILES, 1, 0]


def test_a_batch_is_bounded_in_bytes(backlog: Backlog) -> None:
    backlog.on_scan(numbered(5))
    assert [len(take(backlog, size=BATCH_BYTES // 2)) for _ in range(3)] == [2, 2, 1]


def test_a_large_file_is_alone(backlog: Backlog) -> None:
    backlog.on_scan(["large", "small"])
    sizes = {"large": BATCH_BYTES + 1, "small": 1}
    assert [names(backlog.batch(1, sizes.get)) for _ in range(2)] == [["large"], ["small"]]


def test_a_small_file_does_not_wait_behind_a_large_one_that_does_not_fit(backlog: Backlog) -> None:
    backlog.on_scan(["a small", "b large", "c small"])
    sizes = {"a small": 1, "b large": BATCH_BYTES, "c small": 1}
    assert [names(backlog.batch(1, sizes.get)) for _ in range(2)] == [["a small", "c small"], ["b large"]]


def test_a_file_that_is_gone_is_forgotten(backlog: Backlog) -> None:
    backlog.on_scan(["gone"])
    assert take(backlog, size=None) == []
    assert len(backlog) == 0


@pytest.mark.parametrize("state", ["loaded", "duplicate", "failed", "gone"])
def test_a_final_outcome_ends_it(backlog: Backlog, state: str) -> None:
    backlog.on_scan(["a"])
    come_back(backlog, state)
    assert (len(backlog), take(backlog)) == (0, [])


def test_a_file_heard_of_while_it_flies_is_new_work(backlog: Backlog) -> None:
    backlog.on_scan(["a"])
    flying = take(backlog)
    backlog.on_event("a")
    assert take(backlog) == []
    backlog.settle(Outcome(flying[0].name, "loaded"))
    assert names(take(backlog)) == ["a"]


@pytest.mark.parametrize(("state", "failure"), [("loaded", ""), ("duplicate", ""), ("waiting", "bad")])
def test_a_file_that_ended_but_is_still_there_is_tried_again_as_such(
    backlog: Backlog, clock: Clock, state: State, failure: str
) -> None:
    undisposed = Undisposed(STAMP, failure)
    backlog.on_scan(["a"])
    (work,) = take(backlog)
    backlog.settle(Outcome(work.name, state, "it can't be moved", identity=STAMP, undisposed=undisposed))
    assert take(backlog) == []
    clock.go_to(backlog.next_due())
    assert [work.undisposed for work in take(backlog)] == [undisposed]


def test_a_waiting_file_is_tried_again_later_and_later(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    delays = []
    for _ in range(7):
        come_back(backlog, "waiting")
        delays.append(clock.go_to(backlog.next_due()))
    assert delays == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])
    assert backlog.tries("a") == 7


def test_a_file_that_changes_is_tried_soon_again(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    for _ in range(7):
        come_back(backlog, "waiting")
        clock.go_to(backlog.next_due())
    come_back(backlog, "waiting", OTHER)
    assert clock.go_to(backlog.next_due()) == pytest.approx(0.2)


def test_a_file_may_wait_for_ever(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    for _ in range(2000):
        come_back(backlog, "waiting")
        clock.go_to(backlog.next_due())
    come_back(backlog, "waiting")
    assert clock.go_to(backlog.next_due()) == pytest.approx(5)


def test_a_waiting_file_that_is_heard_of_is_tried_at_once(backlog: Backlog) -> None:
    backlog.on_scan(["a"])
    come_back(backlog, "waiting")
    backlog.on_event("a")
    assert names(take(backlog)) == ["a"]


def test_a_scan_does_not_hurry_a_waiting_file(backlog: Backlog) -> None:
    backlog.on_scan(["a"])
    come_back(backlog, "waiting")
    backlog.on_scan(["a"])
    assert take(backlog) == []


def test_however_many_wait_they_are_tried_at_a_bounded_rate(clock: Clock) -> None:
    backlog = Backlog(settle_seconds=80_000, longest_delay=5)
    backlog.on_scan(numbered(10_000))
    for _ in range(3):
        while batch := take(backlog):
            for work in batch:
                backlog.settle(Outcome(work.name, "waiting", identity=STAMP))
        last = max(waiting.due for waiting in backlog._waiting.values())
        assert clock.go_to(last) == pytest.approx(20), "10,000 files at 500 a second"


def test_only_a_file_that_waited_unchanged_is_settled(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    come_back(backlog, "waiting", OTHER)
    clock.now += 59
    come_back(backlog, "waiting", STAMP)
    clock.now += 59
    assert [work.stable for work in take(backlog)] == [None]
    backlog.settle(Outcome("a", "waiting", identity=STAMP))
    clock.now += 1
    assert [work.stable for work in take(backlog)] == [STAMP]


def test_a_waiting_file_is_tried_just_when_it_has_settled(clock: Clock) -> None:
    backlog = Backlog(settle_seconds=1, longest_delay=60)
    backlog.on_scan(["a"])
    moments = []
    for _ in range(4):
        come_back(backlog, "waiting")
        clock.go_to(backlog.next_due())
        moments.append(clock.now - 1000)
    assert moments == pytest.approx([0.2, 0.6, 1, 2.6])


def hidden(name: str, identity: FileIdentity) -> Outcome:
    return Outcome(name, "waiting", identity=identity, hides_writers=True)


def test_files_whose_writers_are_hidden_are_tried_just_when_they_have_been_quiet(clock: Clock) -> None:
    backlog = Backlog(settle_seconds=60, longest_delay=5, quiet_seconds=1.5)
    backlog.on_scan(numbered(10_000))
    while batch := take(backlog):
        assert all(work.quiet is None for work in batch)
        for work in batch:
            backlog.settle(hidden(work.name, STAMP))
    assert clock.go_to(backlog.next_due()) == pytest.approx(1.5)
    tried = [work for _ in range(20) for work in take(backlog)]
    assert len(tried) == 10_000 and all(work.quiet == STAMP for work in tried)


def test_a_file_that_changes_has_to_be_quiet_anew(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    touched = FileIdentity(STAMP.device, STAMP.inode, STAMP.size, STAMP.mtime_ns, STAMP.ctime_ns + 1)
    for identity in (STAMP, touched, OTHER):
        (work,) = take(backlog)
        assert work.quiet != identity
        backlog.settle(hidden("a", identity))
        assert clock.go_to(backlog.next_due()) == pytest.approx(1)
    assert [work.quiet for work in take(backlog)] == [OTHER]


def test_a_loaded_file_that_could_not_be_removed_needs_no_quiet_to_be_tried(
    backlog: Backlog, clock: Clock
) -> None:
    backlog.on_scan(["a"])
    take(backlog)
    backlog.settle(Outcome("a", "loaded", identity=STAMP, undisposed=Undisposed(STAMP), hides_writers=True))
    assert clock.go_to(backlog.next_due()) == pytest.approx(0.2)


def test_a_scan_forgets_what_somebody_else_took(backlog: Backlog) -> None:
    backlog.on_scan(["ready", "waiting"])
    come_back(backlog, "waiting")
    backlog.on_scan(["ready"])
    backlog.on_event("fresh")
    backlog.keep_only([])
    assert (take(backlog), len(backlog)) == ([], 0)


def test_a_scan_does_not_forget_what_is_being_loaded(backlog: Backlog) -> None:
    backlog.on_scan(["a"])
    take(backlog)
    backlog.keep_only([])
    assert len(backlog) == 1


def test_a_batch_given_back_is_ready_at_once_and_nobody_is_blamed(backlog: Backlog) -> None:
    backlog.on_scan(["a", "b"])
    for _ in range(MAX_CRASHES + 1):
        backlog.requeue(take(backlog))
    assert [work.poison_reason for work in take(backlog)] == [None, None]


def test_a_file_that_spoils_a_batch_is_tried_alone(backlog: Backlog) -> None:
    backlog.on_scan(["a", "b", "c"])
    for work in take(backlog):
        backlog.settle(Outcome(work.name, "retry_alone" if work.name == "b" else "loaded"))
    backlog.on_scan(["d"])
    assert sorted(names(take(backlog)) for _ in range(2)) == [["b"], ["d"]]


def test_a_death_over_a_batch_condemns_nobody_but_all_are_tried_alone(backlog: Backlog) -> None:
    backlog.on_scan(["a", "b"])
    die(backlog, take(backlog))
    alone = [take(backlog), take(backlog)]
    assert [names(batch) for batch in alone] == [["a"], ["b"]]
    assert all(work.poison_reason is None for batch in alone for work in batch)


def test_a_file_over_which_a_worker_died_twice_is_condemned(backlog: Backlog) -> None:
    backlog.on_scan(["a"])
    for _ in range(MAX_CRASHES):
        (work,) = take(backlog)
        assert work.poison_reason is None
        die(backlog, [work])
    (work,) = take(backlog)
    assert work.poison_reason == "it ended by signal 11; 2 times, with this file alone"


def die(backlog: Backlog, batch: list[FileTask]) -> None:
    backlog.record_crash(batch, "it ended by signal 11", is_killed=False)


def kill(backlog: Backlog, batch: list[FileTask]) -> None:
    backlog.record_crash(batch, "it was killed", is_killed=True)


def test_a_file_over_which_a_worker_was_killed_is_condemned_later(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    pauses = []
    for _ in range(MAX_KILLS):
        (work,) = take(backlog)
        assert work.poison_reason is None
        kill(backlog, [work])
        assert take(backlog) == []
        pauses.append(clock.go_to(backlog.next_due()))
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5, 5, 5])
    (work,) = take(backlog)
    assert work.poison_reason == "it was killed; 10 times, with this file alone"


def test_a_batch_over_which_a_worker_was_killed_is_tried_one_by_one_at_once(backlog: Backlog) -> None:
    backlog.on_scan(["a", "b"])
    kill(backlog, take(backlog))
    assert [names(take(backlog)) for _ in range(2)] == [["a"], ["b"]]


def test_kills_do_not_add_to_deaths_of_the_worker_s_own(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    for end in (die, kill, kill, die):
        (work,) = take(backlog)
        assert work.poison_reason is None
        end(backlog, [work])
        if end is kill:
            clock.go_to(backlog.next_due())
    (work,) = take(backlog)
    assert work.poison_reason == "it ended by signal 11; 4 times, with this file alone"


def test_a_new_file_of_a_condemned_name_starts_innocent(backlog: Backlog) -> None:
    backlog.on_scan(["a"])
    for _ in range(MAX_CRASHES):
        die(backlog, take(backlog))
    come_back(backlog, "failed")
    backlog.on_scan(["a"])
    assert take(backlog)[0].poison_reason is None


def test_only_stuck_means_that_nothing_is_left_that_could_still_end(backlog: Backlog, clock: Clock) -> None:
    assert backlog.only_stuck(61)
    backlog.on_scan(["a"])
    assert not backlog.only_stuck(61)
    come_back(backlog, "waiting", None)
    assert not backlog.only_stuck(61)
    clock.now += 62
    assert backlog.only_stuck(61)


def test_a_file_that_was_moved_there_and_back_by_us_waits_longer_and_longer(
    backlog: Backlog, clock: Clock
) -> None:
    backlog.on_scan(["a"])
    come_back(backlog, "waiting")
    first = backlog.next_due() - clock.now
    clock.go_to(backlog.next_due())
    moved = FileIdentity(STAMP.device, STAMP.inode, STAMP.size, STAMP.mtime_ns, STAMP.ctime_ns + 1)
    come_back(backlog, "waiting", moved)
    assert backlog.next_due() - clock.now > first and backlog.tries("a") == 2
    clock.go_to(clock.now + 60)
    assert [work.stable for work in take(backlog)] == [moved]


# Suspects -----------------------------------------------------------------------------------------


def load_another(backlog: Backlog, name: str = "another") -> None:
    """Heard of, taken alone and loaded: the database is well."""
    backlog.on_event(name)
    (work,) = backlog.batch(2, lambda name: 10, others_first=True)
    assert work.name == name
    backlog.settle(Outcome(name, "loaded"))
    backlog.note_loaded()


def strike(backlog: Backlog, clock: Clock) -> str | None:
    """The one file is due, tried and fails; why it would have been condemned before that."""
    clock.now = max(clock.now, backlog.next_due()) if backlog.next_due() < float("inf") else clock.now
    (work,) = take(backlog)
    backlog.suspect([work], "no", 0.1)
    return work.poison_reason


def test_a_suspect_of_which_others_show_that_the_database_is_well_is_condemned(
    backlog: Backlog, clock: Clock
) -> None:
    backlog.on_scan(["a"])
    for _ in range(MAX_STRIKES + 1):
        assert strike(backlog, clock) is None
        load_another(backlog)
    (work,) = take(backlog)
    reason = f"no; {MAX_STRIKES + 1} times, with this file alone, while others were loaded"
    assert work.poison_reason == reason


def test_a_suspect_without_others_is_condemned_later_with_growing_pauses(clock: Clock) -> None:
    backlog = Backlog(60, 5, suspects=Suspects(max_lone_strikes=MAX_LONE_STRIKES))
    backlog.on_scan(["a"])
    moments = []
    for _ in range(MAX_LONE_STRIKES):
        assert strike(backlog, clock) is None
        moments.append(clock.now)
    (work,) = take(backlog)
    assert work.poison_reason and work.poison_reason.endswith(
        "with this file alone, while the database answered"
    )
    pauses = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert pauses == sorted(pauses) and pauses[0] == pytest.approx(0.2) and pauses[-1] > 40


def test_a_suspect_rests_for_as_long_as_it_kept_a_worker(backlog: Backlog) -> None:
    backlog.on_scan(["a"])
    assert backlog.suspect(take(backlog), "no", 120.0) == NextTry(pause=120.0)


def test_the_files_of_a_suspected_batch_are_tried_alone_one_at_a_time_and_the_others_go_on(
    backlog: Backlog,
) -> None:
    backlog.on_scan(["a", "b", "c"])
    backlog.suspect(take(backlog), "no", 1.0)
    backlog.on_scan(["d", "e"])
    assert [names(take(backlog)) for _ in range(3)] == [["a"], ["d", "e"], []]
    backlog.settle(Outcome("a", "loaded"))
    backlog.on_event("b")
    assert [names(take(backlog)) for _ in range(2)] == [["b"], []]


def test_where_there_is_one_worker_the_others_come_before_suspects(backlog: Backlog) -> None:
    backlog.on_scan(["a"])
    backlog.settle(Outcome(take(backlog)[0].name, "retry_alone"))
    backlog.suspect([*take(backlog), FileTask("b")], "no", 1.0)
    backlog.on_scan(["c"])
    found = [names(backlog.batch(1, lambda name: 10, others_first=True)) for _ in range(3)]
    assert found == [["c"], ["a"], []]


def test_a_suspect_that_is_gone_is_passed_over(backlog: Backlog) -> None:
    backlog.on_scan(["a", "b"])
    backlog.suspect(take(backlog), "no", 1.0)
    assert names(backlog.batch(1, lambda name: None if name == "a" else 10)) == ["b"]


def test_a_file_that_meets_a_lock_rests_and_is_not_hurried(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    take(backlog)
    backlog.settle(Outcome("a", "contended", seconds=2.0))
    backlog.on_event("a")
    assert take(backlog) == [] and clock.go_to(backlog.next_due()) == 2.0
    assert names(take(backlog)) == ["a"]


def test_setbacks_of_a_batch_have_its_files_tried_alone_and_hold_back_the_one_that_goes_on(
    backlog: Backlog, clock: Clock
) -> None:
    backlog.on_scan(["a", "b"])
    for _ in range(MAX_SETBACKS):
        backlog.set_back(take(backlog), 0.1)
    for _ in range(MAX_SETBACKS + 1):
        (work,) = [work for work in [*take(backlog), *take(backlog)] if _gives_back(backlog, work)]
        assert work.name == "a" and work.poison_reason is None
        backlog.set_back([work], 0.1)
        load_another(backlog)
    assert names(take(backlog)) == ["b"] and take(backlog) == []
    clock.go_to(backlog.next_due())
    assert names(take(backlog)) == ["a"]


def _gives_back(backlog: Backlog, work: FileTask) -> bool:
    """All but the file that is meant."""
    if work.name != "a":
        backlog.requeue([work])
    return work.name == "a"


def test_setbacks_while_nothing_is_loaded_hold_nobody_back(backlog: Backlog) -> None:
    backlog.on_scan(["a"])
    for _ in range(20):
        backlog.set_back(take(backlog), 0.1)
    assert names(take(backlog)) == ["a"]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, str]]:
    """What happens to the next batch, and the state that is meant where it comes back."""
    fates = st.sampled_from(
        ["settle", "suspect", "set back", "give back", "die", "hear", "wait", "load another"]
    )
    ends = st.sampled_from(["loaded", "waiting", "contended", "retry_alone", "failed", "gone"])
    return draw(st.lists(st.tuples(fates, ends), max_size=60))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(history=histories(), workers=st.integers(1, 3))
def test_whatever_happens_no_file_is_forgotten_or_in_flight_twice_and_one_suspect_at_most(
    clock: Clock, history: list[tuple[str, str]], workers: int
) -> None:
    backlog = Backlog(settle_seconds=60, longest_delay=5)
    left, flying, struck = set(numbered(8)), list[list[FileTask]](), set[str]()

    def size_of(name: str) -> int | None:
        return 10 if name in left else None

    backlog.on_scan(sorted(left))
    for fate, end in history:
        if len(flying) < workers and (batch := backlog.batch(workers, size_of, others_first=workers == 1)):
            flying.append(batch)
        in_flight = [work.name for batch in flying for work in batch]
        assert len(in_flight) == len(set(in_flight)) and len(backlog) >= len(left)
        assert sum(name in struck for name in in_flight) <= 1
        for batch in flying:
            assert len(batch) == 1 or not any(work.name in struck for work in batch)
        if fate == "wait":
            clock.now += 70
        elif fate == "hear":
            for name in sorted(left)[:1]:
                backlog.on_event(name)
        elif flying:
            batch = flying.pop(0)
            names_of = {work.name for work in batch}
            if fate == "settle":
                for work in batch:
                    backlog.settle(Outcome(work.name, end, identity=STAMP))  # type: ignore[arg-type]
                if end in ("loaded", "failed", "gone"):
                    left -= names_of
                    struck -= names_of
                struck |= names_of if end == "contended" else set()
            elif fate == "suspect":
                backlog.suspect(batch, "no", 0.1)
                struck |= names_of
            elif fate == "set back":
                backlog.set_back(batch, 0.1)
            elif fate == "give back":
                backlog.requeue(batch)
            elif fate == "die":
                backlog.record_crash(batch, "died", is_killed=end == "failed")
            else:
                backlog.note_loaded()
                backlog.requeue(batch)
    drained(backlog, clock, flying, left)


def drained(backlog: Backlog, clock: Clock, flying: list[list[FileTask]], left: set[str]) -> None:
    """When all goes well again each file is loaded, or condemned."""
    for _ in range(100):
        for batch in flying:
            for work in batch:
                left.remove(work.name)
                backlog.settle(Outcome(work.name, "loaded"))
        flying = [batch for batch in [backlog.batch(2, lambda name: 10 if name in left else None)] if batch]
        clock.now += 130
    assert not left and len(backlog) == 0
