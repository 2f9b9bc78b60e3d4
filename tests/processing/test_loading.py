"""What the loader does with a batch, read against a source and a sink in memory."""

import pytest

from processing.batch import FileTask, Outcome
from processing.loader import Loader
from processing.sink import Counts
from sinks.memory import MemorySink
from sources.memory import MemorySource
from tests.support import detections, event, report, statuses

HUGE = 1 << 40


class Fleet:
    """A loader, its files by their names, and its sink."""

    def __init__(self, max_bytes: int = HUGE, max_reject_ratio: float = 1.0) -> None:
        self.files: dict[str, bytes] = {}
        self.source = MemorySource(lambda name: self.files.get(name, b""))
        self.sink = MemorySink()
        self.loader = Loader(self.source, self.sink, max_bytes, max_reject_ratio)

    def load(self, **files: bytes) -> list[Outcome]:
        self.files |= files
        return self.loader.load([FileTask(name) for name in files])


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def states(outcomes: list[Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes]


def test_the_files_of_a_batch_are_loaded_in_one_transaction(fleet: Fleet) -> None:
    outcomes = fleet.load(a=statuses(report(0)), b=detections(event(0)))
    assert states(outcomes) == ["loaded", "loaded"]
    assert [outcome.counts for outcome in outcomes] == [Counts(1, 1, 0, 0), Counts(2, 2, 0, 0)]
    assert len(fleet.sink.rows) == 3


def test_a_loaded_file_is_completed_and_a_bad_one_quarantined(fleet: Fleet) -> None:
    fleet.load(good=statuses(report(0)), bad=b"[]")
    assert (list(fleet.source.completed), list(fleet.source.quarantined)) == (["good"], ["bad"])


def test_a_bad_file_leaves_the_others_of_its_batch_alone(fleet: Fleet) -> None:
    outcomes = fleet.load(a=statuses(report(0)), bad=b'{"vehicle_status": [}', b=statuses(report(1)))
    assert states(outcomes) == ["loaded", "failed", "loaded"]
    assert outcomes[1].reason.startswith("expected valid JSON")
    assert sorted(entry.state for entry in fleet.sink.ledger.values()) == ["failed", "loaded", "loaded"]


def test_a_file_that_comes_again_is_a_duplicate_and_counted(fleet: Fleet) -> None:
    content = statuses(report(0))
    assert states(fleet.load(a=content)) == ["loaded"]
    assert states(fleet.load(a=content)) == ["duplicate"]
    assert [entry.deliveries for entry in fleet.sink.ledger.values()] == [2]


def test_a_bad_record_is_rejected_and_the_file_loaded(fleet: Fleet) -> None:
    (outcome,) = fleet.load(a=statuses(report(0), {}, report(1)))
    assert (outcome.state, outcome.counts) == ("loaded", Counts(3, 2, 0, 1))


def test_a_file_with_too_many_rejects_fails_as_a_whole() -> None:
    strict = Fleet(max_reject_ratio=0.5)
    (outcome,) = strict.load(a=statuses(report(0), {}, {}))
    assert outcome.state == "failed" and "MAX_REJECT_RATIO" in outcome.reason
    assert strict.sink.rows == {}


def test_a_file_that_ends_in_the_middle_waits_until_it_is_stable(fleet: Fleet) -> None:
    (outcome,) = fleet.load(a=statuses(report(0))[:-2])
    assert outcome.state == "waiting"
    (outcome,) = fleet.loader.load([FileTask("a", stable=outcome.identity)])
    assert outcome.state == "failed"


def test_a_file_that_is_too_large_is_not_read() -> None:
    small = Fleet(max_bytes=10)
    (outcome,) = small.load(a=statuses(report(0)))
    assert outcome.state == "failed" and "MAX_FILE_BYTES" in outcome.reason


def test_poison_is_quarantined_unread(fleet: Fleet) -> None:
    fleet.files["a"] = statuses(report(0))
    (outcome,) = fleet.loader.load([FileTask("a", poison_reason="it killed two workers")])
    assert (outcome.state, outcome.reason) == ("failed", "it killed two workers")
    assert fleet.sink.rows == {}
