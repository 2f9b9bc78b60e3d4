"""A file too large for one transaction of a sink: none of it is committed before all of it was read."""

import gzip
import json

import pytest

from processing.batch import FileTask, Outcome
from processing.errors import NotReady, PartsWanted
from processing.loader import Loader
from processing.records import Kind, Parsed
from processing.sink import Counts, Delivery
from sinks.memory import MemorySink, MemoryTransaction
from sources.memory import MemoryFile, MemorySource
from tests.processing.loading import S, counts, many_reports, states
from tests.support import report, statuses

#: More than may share a transaction.
LARGE = statuses(*many_reports(30_000))


class PartsTransaction(MemoryTransaction):
    """Takes no more than some records at once, and only counts the others, unless the file was checked."""

    most = 10_000

    def __init__(self, sink: "PartsSink") -> None:
        super().__init__(sink)
        self._parts = sink.parts
        self._left = self.most
        self._delivery: Delivery | None = None
        self._is_counting = False

    def begin_file(self, delivery: Delivery, kind: Kind) -> None:
        super().begin_file(delivery, kind)
        self._delivery = delivery

    def write(self, parsed: Parsed) -> None:
        super().write(parsed)
        self._left -= parsed.count
        if self._left < 0:
            check = self._delivery.check_unchanged if self._delivery else None
            self._is_counting = self._is_counting or check is None
            if check is not None:
                check()
                self._parts.append(parsed.index + parsed.count)
                self._left = self.most

    def commit(self) -> list[Counts]:
        if self._is_counting:
            raise PartsWanted
        return super().commit()


class PartsSink(MemorySink):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[int] = []

    def transaction(self, *, is_hasty: bool = False):
        return _committed(PartsTransaction(self))


class _committed:
    """The transaction as a context manager."""

    def __init__(self, transaction: PartsTransaction) -> None:
        self._transaction = transaction

    def __enter__(self) -> PartsTransaction:
        return self._transaction

    def __exit__(self, *_: object) -> None: ...


def load(sink: PartsSink, ratio: float = 1.0, **files: bytes) -> list[Outcome]:
    source = MemorySource({f"{S}{name}.json": text for name, text in files.items()}.get)
    return Loader(source, sink, 10**9, ratio).load([FileTask(f"{S}{name}.json") for name in files])


def test_a_large_file_is_read_to_its_end_and_then_written_in_parts() -> None:
    sink = PartsSink()
    (outcome,) = load(sink, a=LARGE)
    assert (outcome.state, counts(outcome)) == ("loaded", (30_000, 30_000, 0, 0))
    assert len(sink.parts) >= 2


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (LARGE[:-2] + b"x]}", "failed"),
        (LARGE[:-2], "waiting"),
        (LARGE[:-2] + b", {}" * 20_000 + b"]}", "failed"),
    ],
    ids=["no JSON at its end", "not whole yet", "too many rejects"],
)
def test_a_large_file_that_is_not_good_has_no_part_written(text: bytes, state: str) -> None:
    sink = PartsSink()
    (outcome,) = load(sink, 0.1, a=text)
    assert (outcome.state, outcome.counts.read, sink.parts) == (state, 0, [])


def test_a_large_file_that_only_a_careful_pass_can_read_is_checked_by_one() -> None:
    twice = json.dumps(report(vehicle="twice")).encode()[:-1] + b', "status": "parking"}'
    sink = PartsSink()
    (outcome,) = load(sink, a=LARGE[:-2] + b"," + twice + b"]}")
    assert (outcome.state, counts(outcome)) == ("loaded", (30_001, 30_000, 0, 1))
    assert len(sink.parts) >= 2


def test_a_file_that_changes_between_two_parts_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    sink, checks = PartsSink(), []

    def check(file: MemoryFile) -> None:
        checks.append(file)
        if len(checks) == 3:  # the first is at the end of the pass that checks, the second before a part
            raise NotReady("somebody is writing it")

    monkeypatch.setattr(MemoryFile, "check_unchanged", check)
    (outcome,) = load(sink, a=LARGE)
    assert (outcome.state, len(sink.parts), sink.ledger) == ("waiting", 1, {})


def test_small_files_that_are_too_many_for_a_transaction_are_loaded_alone() -> None:
    sink = PartsSink()
    small = [statuses(*many_reports(6_000, part=number)) for number in (1, 2)]
    assert states(load(sink, a=small[0], b=small[1])) == ["retry_alone", "retry_alone"]
    assert sink.parts == []


def test_a_small_file_that_is_too_large_for_a_transaction_is_read_to_its_end() -> None:
    sink = PartsSink()
    (outcome,) = load(sink, a=gzip.compress(statuses(*many_reports(12_000))))
    assert (outcome.state, outcome.counts.read, len(sink.parts)) == ("loaded", 12_000, 1)
