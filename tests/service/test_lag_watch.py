"""The look at the logs of partitions: lags, and what an open transaction holds up."""

from collections.abc import Collection, Sequence

import pytest

from processing.stream import TopicPartition
from service.events import Event
from service.lag_watch import LagWatch
from service.stream_events import LagMeasured, MessagesBlocked
from sources.topic_logs import LogEnd

PLACE = TopicPartition("t", "id", 0)


class Logs:
    """Logs of one partition, as far as they reach now."""

    def __init__(self) -> None:
        self.topic_id = "id"
        self.end = LogEnd(10, 10)
        self.asked = 0

    def ids(self, topics: Sequence[str]) -> dict[str, str]:
        self.asked += 1
        return dict.fromkeys(topics, self.topic_id)

    def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, LogEnd]:
        return dict.fromkeys(partitions, self.end)


class Watched:
    """A watch that looks only when it is asked to, with all that it says."""

    def __init__(self) -> None:
        self.logs, self.positions = Logs(), {PLACE: 4}
        self.heard: list[Event] = []
        self.is_new = 0
        self._watch = LagWatch(self.logs, lambda: self.positions, self._note_new, self.heard.append)  # type: ignore[arg-type]

    def look(self) -> list[Event]:
        self.heard.clear()
        self._watch.look()
        return list(self.heard)

    def _note_new(self) -> None:
        self.is_new += 1


@pytest.fixture
def watched() -> Watched:
    return Watched()


def lag(found: list[Event]) -> tuple[int, int, bool]:
    """Returns lag, messages held up, and whether these are known to be held up for some time."""
    (measured,) = [event for event in found if isinstance(event, LagMeasured)]
    (one,) = measured.partitions
    return one.lag, one.blocked, one.blocked_seconds > 0


def test_a_lag_ends_where_an_open_transaction_begins(watched: Watched) -> None:
    assert lag(watched.look()) == (6, 0, False)
    watched.logs.end = LogEnd(10, 15)
    assert lag(watched.look()) == (6, 0, False)  # others come first


def test_what_the_same_transaction_holds_up_at_two_looks_is_said_once(watched: Watched) -> None:
    watched.positions, watched.logs.end = {PLACE: 10}, LogEnd(10, 15)
    assert lag(watched.look()) == (0, 5, False)
    found = watched.look()
    assert MessagesBlocked("t/0", 10, 5) in found and lag(found) == (0, 5, True)
    assert [type(event) for event in watched.look()] == [LagMeasured]
    watched.positions, watched.logs.end = {PLACE: 12}, LogEnd(12, 15)  # another transaction
    assert lag(watched.look()) == (0, 3, False)
    watched.positions, watched.logs.end = {PLACE: 15}, LogEnd(15, 15)
    assert lag(watched.look()) == (0, 0, False)


def test_a_consumer_without_partitions_has_no_lag_and_asks_nothing(watched: Watched) -> None:
    watched.positions = {}
    assert watched.look() == [LagMeasured([])]
    assert watched.logs.asked == 0


def test_a_topic_that_was_made_again_is_noticed(watched: Watched) -> None:
    watched.logs.topic_id = "another"
    assert watched.look() == [] and watched.is_new == 1
