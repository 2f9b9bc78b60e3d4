"""The backlog: every name is in one place, no file is forgotten, none starves the others."""

from collections.abc import Iterable

import pytest

import commands.backlog
from commands.backlog import BATCH_BYTES, BATCH_FILES, MAX_DEATHS, MAX_KILLS, Backlog
from processing.batch import Ended, Outcome, State, Work
from processing.reader import Stamp

STAMP = Stamp(1, 2, 3, 4, 5)
OTHER = Stamp(1, 2, 99, 4, 6)


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
    monkeypatch.setattr(commands.backlog, "time", clock)
    return clock


@pytest.fixture
def backlog() -> Backlog:
    return Backlog(settle_seconds=60, longest_delay=5)


def names(batch: Iterable[Work]) -> list[str]:
    return [work.name for work in batch]


def take(backlog: Backlog, share: int = 1, size: int | None = 10) -> list[Work]:
    return backlog.batch(share, lambda name: size)


def come_back(backlog: Backlog, state: str, stamp: Stamp | None = STAMP, reason: str = "") -> None:
    """Whatever is ready is taken and comes back so."""
    for work in take(backlog):
        backlog.settle(Outcome(work.name, state, reason, stamp=stamp))  # type: ignore[arg-type]


def numbered(count: int) -> list[str]:
    return [f"{number:06}.json" for number in range(count)]


def test_an_empty_backlog_has_no_batch_and_nothing_due(backlog: Backlog) -> None:
    assert (take(backlog), len(backlog), backlog.next_due()) == ([], 0, float("inf"))


def test_what_is_seen_is_handed_out_once(backlog: Backlog) -> None:
    backlog.see(["a", "b"])
    assert names(take(backlog)) == ["a", "b"]
    backlog.see(["a", "b"])
    assert take(backlog) == []
    assert len(backlog) == 2


def test_what_is_heard_comes_before_what_was_seen(backlog: Backlog) -> None:
    backlog.see(numbered(2000))
    backlog.hear("new")
    backlog.hear("001999.json")
    assert names(take(backlog))[:2] == ["new", "001999.json"]


def test_a_stream_of_news_does_not_starve_what_was_seen(backlog: Backlog) -> None:
    backlog.see(["old"])
    for name in numbered(10_000):
        backlog.hear(name)
    assert "old" in names(take(backlog))


def test_workers_share_what_is_there_equally(backlog: Backlog) -> None:
    backlog.see(numbered(100))
    assert [len(take(backlog, share=4)) for _ in range(2)] == [25, 19]


def test_a_batch_is_bounded_in_files(backlog: Backlog) -> None:
    backlog.see(numbered(BATCH_FILES + 1))
    assert [len(take(backlog)) for _ in range(3)] == [BATCH_FILES, 1, 0]


def test_a_batch_is_bounded_in_bytes(backlog: Backlog) -> None:
    backlog.see(numbered(5))
    assert [len(take(backlog, size=BATCH_BYTES // 2)) for _ in range(3)] == [2, 2, 1]


def test_a_large_file_is_alone(backlog: Backlog) -> None:
    backlog.see(["large", "small"])
    sizes = {"large": BATCH_BYTES + 1, "small": 1}
    assert [names(backlog.batch(1, sizes.get)) for _ in range(2)] == [["large"], ["small"]]


def test_a_small_file_does_not_wait_behind_a_large_one_that_does_not_fit(backlog: Backlog) -> None:
    backlog.see(["a small", "b large", "c small"])
    sizes = {"a small": 1, "b large": BATCH_BYTES, "c small": 1}
    assert [names(backlog.batch(1, sizes.get)) for _ in range(2)] == [["a small", "c small"], ["b large"]]


def test_a_file_that_is_gone_is_forgotten(backlog: Backlog) -> None:
    backlog.see(["gone"])
    assert take(backlog, size=None) == []
    assert len(backlog) == 0


@pytest.mark.parametrize("state", ["loaded", "duplicate", "failed", "gone"])
def test_a_final_outcome_ends_it(backlog: Backlog, state: str) -> None:
    backlog.see(["a"])
    come_back(backlog, state)
    assert (len(backlog), take(backlog)) == (0, [])


def test_a_file_heard_of_while_it_flies_is_new_work(backlog: Backlog) -> None:
    backlog.see(["a"])
    flying = take(backlog)
    backlog.hear("a")
    assert take(backlog) == []
    backlog.settle(Outcome(flying[0].name, "loaded"))
    assert names(take(backlog)) == ["a"]


@pytest.mark.parametrize(("state", "failure"), [("loaded", ""), ("duplicate", ""), ("waiting", "bad")])
def test_a_file_that_ended_but_is_still_there_is_tried_again_as_such(
    backlog: Backlog, clock: Clock, state: State, failure: str
) -> None:
    ended = Ended(STAMP, failure)
    backlog.see(["a"])
    (work,) = take(backlog)
    backlog.settle(Outcome(work.name, state, "it can't be moved", stamp=STAMP, ended=ended))
    assert take(backlog) == []
    clock.go_to(backlog.next_due())
    assert [work.ended for work in take(backlog)] == [ended]


def test_a_waiting_file_is_tried_again_later_and_later(backlog: Backlog, clock: Clock) -> None:
    backlog.see(["a"])
    delays = []
    for _ in range(7):
        come_back(backlog, "waiting")
        delays.append(clock.go_to(backlog.next_due()))
    assert delays == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])
    assert backlog.tries("a") == 7


def test_a_file_that_changes_is_tried_soon_again(backlog: Backlog, clock: Clock) -> None:
    backlog.see(["a"])
    for _ in range(7):
        come_back(backlog, "waiting")
        clock.go_to(backlog.next_due())
    come_back(backlog, "waiting", OTHER)
    assert clock.go_to(backlog.next_due()) == pytest.approx(0.2)


def test_a_file_may_wait_for_ever(backlog: Backlog, clock: Clock) -> None:
    backlog.see(["a"])
    for _ in range(2000):
        come_back(backlog, "waiting")
        clock.go_to(backlog.next_due())
    come_back(backlog, "waiting")
    assert clock.go_to(backlog.next_due()) == pytest.approx(5)


def test_a_waiting_file_that_is_heard_of_is_tried_at_once(backlog: Backlog) -> None:
    backlog.see(["a"])
    come_back(backlog, "waiting")
    backlog.hear("a")
    assert names(take(backlog)) == ["a"]


def test_a_scan_does_not_hurry_a_waiting_file(backlog: Backlog) -> None:
    backlog.see(["a"])
    come_back(backlog, "waiting")
    backlog.see(["a"])
    assert take(backlog) == []


def test_however_many_wait_they_are_tried_at_a_bounded_rate(clock: Clock) -> None:
    backlog = Backlog(settle_seconds=80_000, longest_delay=5)
    backlog.see(numbered(10_000))
    for _ in range(3):
        while batch := take(backlog):
            for work in batch:
                backlog.settle(Outcome(work.name, "waiting", stamp=STAMP))
        last = max(waiting.due for waiting in backlog._waiting.values())
        assert clock.go_to(last) == pytest.approx(20), "10,000 files at 500 a second"


def test_only_a_file_that_waited_unchanged_is_settled(backlog: Backlog, clock: Clock) -> None:
    backlog.see(["a"])
    come_back(backlog, "waiting", OTHER)
    clock.now += 59
    come_back(backlog, "waiting", STAMP)
    clock.now += 59
    assert [work.settled for work in take(backlog)] == [None]
    backlog.settle(Outcome("a", "waiting", stamp=STAMP))
    clock.now += 1
    assert [work.settled for work in take(backlog)] == [STAMP]


def test_a_waiting_file_is_tried_just_when_it_has_settled(clock: Clock) -> None:
    backlog = Backlog(settle_seconds=1, longest_delay=60)
    backlog.see(["a"])
    moments = []
    for _ in range(4):
        come_back(backlog, "waiting")
        clock.go_to(backlog.next_due())
        moments.append(clock.now - 1000)
    assert moments == pytest.approx([0.2, 0.6, 1, 2.6])


def hidden(name: str, stamp: Stamp) -> Outcome:
    return Outcome(name, "waiting", stamp=stamp, hides_writers=True)


def test_files_whose_writers_are_hidden_are_tried_just_when_they_have_been_quiet(clock: Clock) -> None:
    backlog = Backlog(settle_seconds=60, longest_delay=5, quiet_seconds=1.5)
    backlog.see(numbered(10_000))
    while batch := take(backlog):
        assert all(work.quiet is None for work in batch)
        for work in batch:
            backlog.settle(hidden(work.name, STAMP))
    assert clock.go_to(backlog.next_due()) == pytest.approx(1.5)
    tried = [work for _ in range(20) for work in take(backlog)]
    assert len(tried) == 10_000 and all(work.quiet == STAMP for work in tried)


def test_a_file_that_changes_has_to_be_quiet_anew(backlog: Backlog, clock: Clock) -> None:
    backlog.see(["a"])
    touched = Stamp(STAMP.device, STAMP.inode, STAMP.size, STAMP.mtime_ns, STAMP.ctime_ns + 1)
    for stamp in (STAMP, touched, OTHER):
        (work,) = take(backlog)
        assert work.quiet != stamp
        backlog.settle(hidden("a", stamp))
        assert clock.go_to(backlog.next_due()) == pytest.approx(1)
    assert [work.quiet for work in take(backlog)] == [OTHER]


def test_a_loaded_file_that_could_not_be_removed_needs_no_quiet_to_be_tried(
    backlog: Backlog, clock: Clock
) -> None:
    backlog.see(["a"])
    take(backlog)
    backlog.settle(Outcome("a", "loaded", stamp=STAMP, ended=Ended(STAMP), hides_writers=True))
    assert clock.go_to(backlog.next_due()) == pytest.approx(0.2)


def test_a_scan_forgets_what_somebody_else_took(backlog: Backlog) -> None:
    backlog.see(["ready", "waiting"])
    come_back(backlog, "waiting")
    backlog.see(["ready"])
    backlog.hear("fresh")
    backlog.keep_only([])
    assert (take(backlog), len(backlog)) == ([], 0)


def test_a_scan_does_not_forget_what_is_being_loaded(backlog: Backlog) -> None:
    backlog.see(["a"])
    take(backlog)
    backlog.keep_only([])
    assert len(backlog) == 1


def test_a_batch_given_back_is_ready_at_once_and_nobody_is_blamed(backlog: Backlog) -> None:
    backlog.see(["a", "b"])
    for _ in range(MAX_DEATHS + 1):
        backlog.give_back(take(backlog))
    assert [work.condemned for work in take(backlog)] == [None, None]


def test_a_file_that_spoils_a_batch_is_tried_alone(backlog: Backlog) -> None:
    backlog.see(["a", "b", "c"])
    for work in take(backlog):
        backlog.settle(Outcome(work.name, "alone" if work.name == "b" else "loaded"))
    backlog.see(["d"])
    assert sorted(names(take(backlog)) for _ in range(2)) == [["b"], ["d"]]


def test_a_death_over_a_batch_condemns_nobody_but_all_are_tried_alone(backlog: Backlog) -> None:
    backlog.see(["a", "b"])
    die(backlog, take(backlog))
    alone = [take(backlog), take(backlog)]
    assert [names(batch) for batch in alone] == [["a"], ["b"]]
    assert all(work.condemned is None for batch in alone for work in batch)


def test_a_file_over_which_a_worker_died_twice_is_condemned(backlog: Backlog) -> None:
    backlog.see(["a"])
    for _ in range(MAX_DEATHS):
        (work,) = take(backlog)
        assert work.condemned is None
        die(backlog, [work])
    (work,) = take(backlog)
    assert work.condemned == "it ended by signal 11; 2 times, with this file alone"


def die(backlog: Backlog, batch: list[Work]) -> None:
    backlog.blame(batch, "it ended by signal 11", is_killed=False)


def kill(backlog: Backlog, batch: list[Work]) -> None:
    backlog.blame(batch, "it was killed", is_killed=True)


def test_a_file_over_which_a_worker_was_killed_is_condemned_later(backlog: Backlog, clock: Clock) -> None:
    backlog.see(["a"])
    pauses = []
    for _ in range(MAX_KILLS):
        (work,) = take(backlog)
        assert work.condemned is None
        kill(backlog, [work])
        assert take(backlog) == []
        pauses.append(clock.go_to(backlog.next_due()))
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5, 5, 5])
    (work,) = take(backlog)
    assert work.condemned == "it was killed; 10 times, with this file alone"


def test_a_batch_over_which_a_worker_was_killed_is_tried_one_by_one_at_once(backlog: Backlog) -> None:
    backlog.see(["a", "b"])
    kill(backlog, take(backlog))
    assert [names(take(backlog)) for _ in range(2)] == [["a"], ["b"]]


def test_kills_do_not_add_to_deaths_of_the_worker_s_own(backlog: Backlog, clock: Clock) -> None:
    backlog.see(["a"])
    for end in (die, kill, kill, die):
        (work,) = take(backlog)
        assert work.condemned is None
        end(backlog, [work])
        if end is kill:
            clock.go_to(backlog.next_due())
    (work,) = take(backlog)
    assert work.condemned == "it ended by signal 11; 4 times, with this file alone"


def test_a_new_file_of_a_condemned_name_starts_innocent(backlog: Backlog) -> None:
    backlog.see(["a"])
    for _ in range(MAX_DEATHS):
        die(backlog, take(backlog))
    come_back(backlog, "failed")
    backlog.see(["a"])
    assert take(backlog)[0].condemned is None


def test_only_stuck_means_that_nothing_is_left_that_could_still_end(backlog: Backlog, clock: Clock) -> None:
    assert backlog.only_stuck(61)
    backlog.see(["a"])
    assert not backlog.only_stuck(61)
    come_back(backlog, "waiting", None)
    assert not backlog.only_stuck(61)
    clock.now += 62
    assert backlog.only_stuck(61)


def test_a_file_that_was_moved_there_and_back_by_us_waits_longer_and_longer(
    backlog: Backlog, clock: Clock
) -> None:
    backlog.see(["a"])
    come_back(backlog, "waiting")
    first = backlog.next_due() - clock.now
    clock.go_to(backlog.next_due())
    moved = Stamp(STAMP.device, STAMP.inode, STAMP.size, STAMP.mtime_ns, STAMP.ctime_ns + 1)
    come_back(backlog, "waiting", moved)
    assert backlog.next_due() - clock.now > first and backlog.tries("a") == 2
    clock.go_to(clock.now + 60)
    assert [work.settled for work in take(backlog)] == [moved]
