"""The backlog: every name is in one place, no file is forgotten, none starves the others."""

import itertools
from collections.abc import Iterable

import pytest

from processing.batch import FileTask, Outcome, State, Undisposed
from processing.source import MAX_SHARED_BYTES
from service.backlog import BATCH_BYTES, BATCH_FILES, Backlog
from service.events import NextTry
from service.suspects import (
    MAX_CRASHES,
    MAX_KILLS,
    MAX_LONE_STRIKES,
    MAX_SETBACKS,
    MAX_STRIKES,
)
from service.waiting import WaitingPolicy
from sources.local_file import FileIdentity

SEEN = FileIdentity(1, 2, 3, 4, 5)
OTHER = FileIdentity(1, 2, 99, 4, 6)


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def go_to(self, moment: float) -> float:
        """How long that took."""
        seconds, self.now = moment - self.now, moment
        return seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(
    clock: Clock, settle_seconds: float = 60, longest_delay: float = 5, quiet_seconds: float = 1
) -> Backlog:
    return Backlog(WaitingPolicy(settle_seconds, longest_delay, quiet_seconds), clock=clock.monotonic)


@pytest.fixture
def backlog(clock: Clock) -> Backlog:
    return made(clock)


def names(batch: Iterable[FileTask]) -> list[str]:
    return [task.name for task in batch]


def take(backlog: Backlog, share: int = 1, size: int | None = 10) -> list[FileTask]:
    return backlog.batch(share, lambda name: size)


def come_back(backlog: Backlog, state: State, identity: FileIdentity | None = SEEN) -> list[int]:
    """Whatever is ready is taken and comes back so; how often each was tried."""
    return [backlog.record_outcome(Outcome(task.name, state, identity=identity)) for task in take(backlog)]


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
    backlog.on_scan(numbered(9))
    assert [len(take(backlog, size=BATCH_BYTES // 4)) for _ in range(3)] == [4, 4, 1]


def test_a_large_file_is_alone(backlog: Backlog) -> None:
    backlog.on_scan(["large", "small"])
    sizes = {"large": MAX_SHARED_BYTES + 1, "small": 1}
    assert [names(backlog.batch(1, sizes.get)) for _ in range(2)] == [["large"], ["small"]]


def test_a_small_file_does_not_wait_behind_a_large_one_that_does_not_fit(backlog: Backlog) -> None:
    backlog.on_scan(["a small", "b large", "c small"])
    sizes = {"a small": 1, "b large": BATCH_BYTES, "c small": 1}
    assert [names(backlog.batch(1, sizes.get)) for _ in range(2)] == [["a small", "c small"], ["b large"]]


def test_a_file_that_is_gone_is_forgotten(backlog: Backlog) -> None:
    backlog.on_scan(["gone"])
    assert take(backlog, size=None) == []
    assert len(backlog) == 0


def test_files_that_are_gone_do_not_keep_the_others_waiting(backlog: Backlog) -> None:
    backlog.on_scan(numbered(2 * BATCH_FILES))
    backlog.on_scan(["here"])
    assert names(backlog.batch(4, {"here": 10}.get)) == ["here"]


def test_a_file_that_waited_was_gone_and_is_there_again_is_ready(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    come_back(backlog, "waiting")
    clock.go_to(backlog.next_due())
    assert take(backlog, size=None) == []
    backlog.on_scan(["a"])
    assert names(take(backlog)) == ["a"]


@pytest.mark.parametrize("state", ["loaded", "duplicate", "failed", "gone"])
def test_a_final_outcome_ends_it(backlog: Backlog, state: State) -> None:
    backlog.on_scan(["a"])
    come_back(backlog, state)
    assert (len(backlog), take(backlog)) == (0, [])


def test_a_file_heard_of_while_it_is_in_flight_is_new_work(backlog: Backlog) -> None:
    backlog.on_scan(["a"])
    in_flight = take(backlog)
    backlog.on_event("a")
    assert take(backlog) == []
    backlog.record_outcome(Outcome(in_flight[0].name, "loaded"))
    assert names(take(backlog)) == ["a"]


@pytest.mark.parametrize(("state", "failure"), [("loaded", ""), ("duplicate", ""), ("waiting", "bad")])
def test_a_file_that_ended_but_is_still_there_is_tried_again_as_such(
    backlog: Backlog, clock: Clock, state: State, failure: str
) -> None:
    undisposed = Undisposed(SEEN, failure)
    backlog.on_scan(["a"])
    (task,) = take(backlog)
    backlog.record_outcome(
        Outcome(task.name, state, "it can't be moved", identity=SEEN, undisposed=undisposed)
    )
    assert take(backlog) == []
    clock.go_to(backlog.next_due())
    assert [task.undisposed for task in take(backlog)] == [undisposed]


def test_a_waiting_file_is_tried_again_later_and_later(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    delays = []
    for tries in range(1, 8):
        assert come_back(backlog, "waiting") == [tries]
        delays.append(clock.go_to(backlog.next_due()))
    assert delays == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])


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


def test_a_pause_that_was_cut_short_does_not_end_the_next_one(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    come_back(backlog, "waiting")
    first_due = backlog.next_due()
    backlog.on_event("a")
    backlog.suspect(take(backlog), "no", 10)
    clock.go_to(first_due)
    assert take(backlog) == []
    clock.go_to(backlog.next_due())
    assert names(take(backlog)) == ["a"]


def test_a_scan_does_not_hurry_a_waiting_file(backlog: Backlog) -> None:
    backlog.on_scan(["a"])
    come_back(backlog, "waiting")
    backlog.on_scan(["a"])
    assert take(backlog) == []


def test_however_many_wait_they_are_tried_at_a_bounded_rate(clock: Clock) -> None:
    backlog = made(clock, settle_seconds=80_000, longest_delay=5)
    backlog.on_scan(numbered(10_000))
    for _ in range(3):
        while batch := take(backlog):
            for task in batch:
                backlog.record_outcome(Outcome(task.name, "waiting", identity=SEEN))
        last = max(file.due for file in backlog._files.by_name.values())
        assert clock.go_to(last) == pytest.approx(20), "10,000 files at 500 a second"


def test_only_a_file_that_waited_unchanged_is_stable(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    come_back(backlog, "waiting", OTHER)
    clock.now += 59
    come_back(backlog, "waiting", SEEN)
    clock.now += 59
    assert [task.stable for task in take(backlog)] == [None]
    backlog.record_outcome(Outcome("a", "waiting", identity=SEEN))
    clock.now += 1
    assert [task.stable for task in take(backlog)] == [SEEN]


def test_a_waiting_file_is_tried_just_when_it_is_stable(clock: Clock) -> None:
    backlog = made(clock, settle_seconds=1, longest_delay=60)
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
    backlog = made(clock, settle_seconds=60, longest_delay=5, quiet_seconds=1.5)
    backlog.on_scan(numbered(10_000))
    while batch := take(backlog):
        assert all(task.quiet is None for task in batch)
        for task in batch:
            backlog.record_outcome(hidden(task.name, SEEN))
    assert clock.go_to(backlog.next_due()) == pytest.approx(1.5)
    tried = [task for _ in range(20) for task in take(backlog)]
    assert len(tried) == 10_000 and all(task.quiet == SEEN for task in tried)


def test_a_file_that_changes_has_to_be_quiet_anew(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    touched = FileIdentity(SEEN.device, SEEN.inode, SEEN.size, SEEN.mtime_ns, SEEN.ctime_ns + 1)
    for identity in (SEEN, touched, OTHER):
        (task,) = take(backlog)
        assert task.quiet != identity
        backlog.record_outcome(hidden("a", identity))
        assert clock.go_to(backlog.next_due()) == pytest.approx(1)
    assert [task.quiet for task in take(backlog)] == [OTHER]


def test_a_loaded_file_that_could_not_be_removed_needs_no_quiet_to_be_tried(
    backlog: Backlog, clock: Clock
) -> None:
    backlog.on_scan(["a"])
    take(backlog)
    backlog.record_outcome(
        Outcome("a", "loaded", identity=SEEN, undisposed=Undisposed(SEEN), hides_writers=True)
    )
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
    assert [task.poison_reason for task in take(backlog)] == [None, None]


def test_a_file_that_spoils_a_batch_is_tried_alone(backlog: Backlog) -> None:
    backlog.on_scan(["a", "b", "c"])
    for task in take(backlog):
        backlog.record_outcome(Outcome(task.name, "retry_alone" if task.name == "b" else "loaded"))
    backlog.on_scan(["d"])
    assert sorted(names(take(backlog)) for _ in range(2)) == [["b"], ["d"]]


def test_a_death_over_a_batch_makes_none_poison_but_all_are_tried_alone(backlog: Backlog) -> None:
    backlog.on_scan(["a", "b"])
    die(backlog, take(backlog))
    alone = [take(backlog), take(backlog)]
    assert [names(batch) for batch in alone] == [["a"], ["b"]]
    assert all(task.poison_reason is None for batch in alone for task in batch)


def test_a_file_over_which_a_worker_died_twice_is_poison(backlog: Backlog) -> None:
    backlog.on_scan(["a"])
    for _ in range(MAX_CRASHES):
        (task,) = take(backlog)
        assert task.poison_reason is None
        die(backlog, [task])
    (task,) = take(backlog)
    assert task.poison_reason == "it ended by signal 11; 2 times, with this file alone"


def die(backlog: Backlog, batch: list[FileTask]) -> None:
    backlog.record_crash(batch, "it ended by signal 11", is_killed=False)


def kill(backlog: Backlog, batch: list[FileTask]) -> None:
    backlog.record_crash(batch, "it was killed", is_killed=True)


def test_a_file_over_which_a_worker_was_killed_is_poison_later(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    pauses = []
    for _ in range(MAX_KILLS):
        (task,) = take(backlog)
        assert task.poison_reason is None
        kill(backlog, [task])
        assert take(backlog) == []
        pauses.append(clock.go_to(backlog.next_due()))
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5, 5, 5])
    (task,) = take(backlog)
    assert task.poison_reason == "it was killed; 10 times, with this file alone"


def test_a_batch_over_which_a_worker_was_killed_is_tried_one_by_one_at_once(backlog: Backlog) -> None:
    backlog.on_scan(["a", "b"])
    kill(backlog, take(backlog))
    assert [names(take(backlog)) for _ in range(2)] == [["a"], ["b"]]


def test_kills_do_not_add_to_deaths_of_the_worker_s_own(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    for end in (die, kill, kill, die):
        (task,) = take(backlog)
        assert task.poison_reason is None
        end(backlog, [task])
        if end is kill:
            clock.go_to(backlog.next_due())
    (task,) = take(backlog)
    assert task.poison_reason == "it ended by signal 11; 4 times, with this file alone"


def test_a_new_file_of_a_poison_name_starts_innocent(backlog: Backlog) -> None:
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
    assert not backlog.only_stuck(61)  # it has not been tried since
    come_back(backlog, "waiting", None)
    assert backlog.only_stuck(61)


def test_a_file_that_was_moved_there_and_back_by_us_waits_longer_and_longer(
    backlog: Backlog, clock: Clock
) -> None:
    backlog.on_scan(["a"])
    come_back(backlog, "waiting")
    first = backlog.next_due() - clock.now
    clock.go_to(backlog.next_due())
    moved = FileIdentity(SEEN.device, SEEN.inode, SEEN.size, SEEN.mtime_ns, SEEN.ctime_ns + 1)
    assert come_back(backlog, "waiting", moved) == [2]
    assert backlog.next_due() - clock.now > first
    clock.go_to(clock.now + 60)
    assert [task.stable for task in take(backlog)] == [moved]


# Suspects -----------------------------------------------------------------------------------------


def load_another(backlog: Backlog, name: str = "another") -> None:
    """Heard of, taken alone and loaded: the database is well."""
    backlog.on_event(name)
    (task,) = backlog.batch(2, lambda name: 10, others_first=True)
    assert task.name == name
    backlog.record_outcome(Outcome(name, "loaded"))
    backlog.note_loaded()


def strike(backlog: Backlog, clock: Clock) -> str | None:
    """The one file is due, tried and fails; why it was poison before that."""
    clock.now = max(clock.now, backlog.next_due()) if backlog.next_due() < float("inf") else clock.now
    (task,) = take(backlog)
    backlog.suspect([task], "no", 0.1)
    return task.poison_reason


def test_a_suspect_of_which_others_show_that_the_database_is_well_is_poison(
    backlog: Backlog, clock: Clock
) -> None:
    backlog.on_scan(["a"])
    for _ in range(MAX_STRIKES + 1):
        assert strike(backlog, clock) is None
        load_another(backlog)
    (task,) = take(backlog)
    reason = f"no; {MAX_STRIKES + 1} times, with this file alone, while others were loaded"
    assert task.poison_reason == reason


def test_a_suspect_without_others_is_poison_later_with_growing_pauses(backlog: Backlog, clock: Clock) -> None:
    backlog.on_scan(["a"])
    moments = []
    for _ in range(MAX_LONE_STRIKES):
        assert strike(backlog, clock) is None
        moments.append(clock.now)
    (task,) = take(backlog)
    assert task.poison_reason and task.poison_reason.endswith(
        "with this file alone, while the database answered"
    )
    pauses = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert pauses == sorted(pauses) and pauses[0] == pytest.approx(0.2) and pauses[-1] > 40


def test_a_suspect_is_tried_again_soon_and_then_rests_for_as_long_as_it_kept_a_worker(
    backlog: Backlog, clock: Clock
) -> None:
    backlog.on_scan(["a"])
    assert backlog.suspect(take(backlog), "no", 120.0) == NextTry(pause=0.2)
    clock.go_to(backlog.next_due())
    assert backlog.suspect(take(backlog), "no", 120.0) == NextTry(pause=120.0)


def test_the_files_of_a_suspected_batch_are_tried_alone_one_at_a_time_and_the_others_go_on(
    backlog: Backlog,
) -> None:
    backlog.on_scan(["a", "b", "c"])
    backlog.suspect(take(backlog), "no", 1.0)
    backlog.on_scan(["d", "e"])
    assert [names(take(backlog)) for _ in range(3)] == [["a"], ["d", "e"], []]
    backlog.record_outcome(Outcome("a", "loaded"))
    backlog.on_event("b")
    assert [names(take(backlog)) for _ in range(2)] == [["b"], []]


def test_where_there_is_one_worker_the_others_come_before_suspects(backlog: Backlog) -> None:
    backlog.on_scan(["a", "b"])
    backlog.suspect(take(backlog), "no", 1.0)
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
    backlog.record_outcome(Outcome("a", "contended", seconds=2.0))
    backlog.on_event("a")
    assert take(backlog) == [] and clock.go_to(backlog.next_due()) == 2.0
    assert names(take(backlog)) == ["a"]


def test_setbacks_of_a_batch_have_its_files_tried_alone_and_hold_back_the_one_that_goes_on(
    backlog: Backlog, clock: Clock
) -> None:
    backlog.on_scan(["a", "b"])
    for _ in range(MAX_SETBACKS):
        backlog.record_setback(take(backlog), 0.1)
    for _ in range(MAX_SETBACKS + 1):
        (task,) = [task for task in [*take(backlog), *take(backlog)] if _gives_back(backlog, task)]
        assert task.name == "a" and task.poison_reason is None
        backlog.record_setback([task], 0.1)
        load_another(backlog)
    assert names(take(backlog)) == ["b"] and take(backlog) == []
    clock.go_to(backlog.next_due())
    assert names(take(backlog)) == ["a"]


def _gives_back(backlog: Backlog, task: FileTask) -> bool:
    """All but the file that is meant."""
    if task.name != "a":
        backlog.requeue([task])
    return task.name == "a"


def test_setbacks_while_nothing_is_loaded_hold_nobody_back(backlog: Backlog) -> None:
    backlog.on_scan(["a"])
    for _ in range(20):
        backlog.record_setback(take(backlog), 0.1)
    assert names(take(backlog)) == ["a"]


def test_what_is_done_while_a_part_is_listed_is_not_tried_again(backlog: Backlog, clock: Clock) -> None:
    backlog.on_page({"a": SEEN, "b": SEEN}, clock.monotonic())
    began = clock.monotonic()
    clock.go_to(began + 1)
    (task, _) = backlog.batch(1, lambda name: 0)
    backlog.record_outcome(Outcome(task.name, "loaded"))
    backlog.on_page({"a": SEEN, "c": SEEN}, began)
    assert [task.name for task in backlog.batch(1, lambda name: 0)] == ["c"]
    backlog.on_page({"a": OTHER}, clock.monotonic())
    assert [task.name for task in backlog.batch(1, lambda name: 0)] == ["a"]


def test_what_came_under_the_name_of_a_done_one_before_the_listing_began_is_ready(
    backlog: Backlog, clock: Clock
) -> None:
    backlog.on_page({"a": SEEN}, clock.monotonic())
    backlog.record_outcome(Outcome(take(backlog)[0].name, "loaded"))
    clock.go_to(clock.monotonic() + 1)
    backlog.on_page({"a": OTHER}, clock.monotonic())
    assert names(take(backlog)) == ["a"]


@pytest.mark.parametrize(("listed", "expected"), [(SEEN, []), (OTHER, ["a"])])
def test_what_was_listed_with_another_identity_while_it_was_in_flight_is_tried_once_more(
    backlog: Backlog, clock: Clock, listed: FileIdentity, expected: list[str]
) -> None:
    backlog.on_page({"a": SEEN}, clock.monotonic())
    take(backlog)
    for _ in range(2):
        clock.go_to(clock.monotonic() + 1)
        backlog.on_page({"a": listed}, clock.monotonic())
    backlog.record_outcome(Outcome("a", "loaded"))
    assert names(take(backlog)) == expected
    if expected:
        backlog.record_outcome(Outcome("a", "gone"))
    assert take(backlog) == []
