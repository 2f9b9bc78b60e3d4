"""The contract of a sink: tests that each implementation passes.

A test module subclasses SinkContract and has a fixture `kit`, which looks into the sink from outside.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from processing.records import Kind, Parsed
from processing.sink import Counts, Delivery, FirstReject, Sink
from processing.vehicle_status import KIND
from tests.support import report

#: Name, state and deliveries of a file; the four counts.
LedgerRow = tuple[str, str, int, Counts]


class Kit:
    """A sink, and what is in it as others see it."""

    sink: Sink

    def statuses(self) -> dict[tuple[str, int], str]:
        """Returns the stored status of each vehicle and minute of the reports."""
        raise NotImplementedError

    def ledger(self) -> list[LedgerRow]:
        """Returns all entries, sorted."""
        raise NotImplementedError

    def extras(self) -> list[Any]:
        """Returns what was kept beside the arrays of the files, in the order of their names."""
        raise NotImplementedError

    def rejects(self) -> list[tuple[str, str]]:
        """Returns reason and path of each rejected record, sorted."""
        raise NotImplementedError


def delivery(name: str) -> Delivery:
    return Delivery(hashlib.sha256(name.encode()).digest(), name, 10, datetime.now(UTC))


def parsed(*elements: Any) -> list[Parsed]:
    return list(KIND.parse(elements))


def write(kit: Kit, name: str, *elements: dict[str, Any], kind: Kind = KIND) -> Counts:
    """Loads one file in a transaction of its own, and checks what the sink says of it."""
    with kit.sink.transaction() as transaction:
        assert transaction.loaded([delivery(name).sha256 or b""]) == set()
        transaction.begin_file(delivery(name), kind)
        for some in parsed(*elements):
            transaction.write(some)
        (counts,) = transaction.finish()
        assert transaction.commit() == [counts]
    return counts


class SinkContract:
    """Tests for every sink, with keys or without."""

    def test_what_is_committed_is_there(self, kit: Kit) -> None:
        assert write(kit, "a.json", report(0), report(60, "parking")) == Counts(2, 2, 0, 0)
        assert list(kit.statuses().values()) == ["driving", "parking"]
        assert kit.ledger() == [("a.json", "loaded", 1, Counts(2, 2, 0, 0))]

    def test_fields_beside_the_array_stay_with_their_file(self, kit: Kit) -> None:
        kit.sink.record_failure(delivery("b.json"), None, "it was bad")
        with kit.sink.transaction() as transaction:
            transaction.loaded([delivery(name).sha256 or b"" for name in ("a.json", "b.json")])
            for name, extra in (("a.json", None), ("b.json", '{"version": [1.50, "\u00e9"]}')):
                transaction.begin_file(delivery(name), KIND)
                if extra:
                    transaction.keep(extra)
            transaction.commit()
        assert kit.extras() == [None, {"version": [1.5, "\u00e9"]}]

    def test_what_is_not_committed_leaves_nothing(self, kit: Kit) -> None:
        with kit.sink.transaction() as transaction:
            transaction.loaded([delivery("a.json").sha256 or b""])
            transaction.begin_file(delivery("a.json"), KIND)
            for some in parsed(report(0), {}):
                transaction.write(some)
            transaction.finish()
        assert (kit.statuses(), kit.ledger(), kit.rejects()) == ({}, [], [])

    def test_nothing_is_seen_before_the_commit(self, kit: Kit) -> None:
        with kit.sink.transaction() as transaction:
            transaction.loaded([delivery("a.json").sha256 or b""])
            transaction.begin_file(delivery("a.json"), KIND)
            for some in parsed(report(0)):
                transaction.write(some)
            transaction.finish()
            assert (kit.statuses(), kit.ledger()) == ({}, [])
            transaction.commit()
        assert len(kit.statuses()) == len(kit.ledger()) == 1

    def test_a_file_is_loaded_after_its_commit_and_only_then(self, kit: Kit) -> None:
        digests = [delivery(name).sha256 or b"" for name in ("a.json", "b.json")]
        assert self.loaded(kit, digests) == set()
        write(kit, "a.json", report(0))
        assert self.loaded(kit, digests) == {digests[0]}

    def test_bytes_that_come_again_are_counted_and_nothing_else(self, kit: Kit) -> None:
        write(kit, "a.json", report(0))
        with kit.sink.transaction() as transaction:
            transaction.loaded([delivery("a.json").sha256 or b""])
            transaction.redelivered(delivery("a.json"))
            transaction.commit()
        assert kit.ledger() == [("a.json", "loaded", 2, Counts(1, 1, 0, 0))]
        assert len(kit.statuses()) == 1

    def test_what_is_invalid_is_rejected_and_the_counts_add_up(self, kit: Kit) -> None:
        files: dict[str, list[Any]] = {
            "none.json": [report(60)],
            "two.json": [report(180), {}, report(240), []],
        }
        with kit.sink.transaction() as transaction:
            transaction.loaded([delivery(name).sha256 or b"" for name in files])
            for name, elements in files.items():
                transaction.begin_file(delivery(name), KIND)
                for some in parsed(*elements):
                    transaction.write(some)
            assert transaction.finish() == [Counts(1, 1, 0, 0), Counts(4, 2, 0, 2)]
            found = transaction.first_rejects()
            transaction.commit()
            assert transaction.first_rejects() == found
        assert found == [None, FirstReject(1, "$.vehicle_status[1]", "invalid")]
        assert kit.rejects() == [("invalid", "$.vehicle_status[1]"), ("invalid", "$.vehicle_status[3]")]
        assert list(kit.statuses().values()) == ["driving"] * 3

    def test_a_record_dated_too_far_ahead_is_rejected(self, kit: Kit) -> None:
        """The bound of the kit's sink is 24 hours."""
        hours = [(-1, "past"), (23, "soon"), (25, "late"), (600_000, "lost"), (1, "again")]
        dated = [
            report(vehicle=name) | {"report_time": (datetime.now(UTC) + timedelta(hours=hour)).isoformat()}
            for hour, name in hours
        ]
        assert write(kit, "a.json", *dated, {}) == Counts(6, 3, 0, 3)
        assert sorted({vehicle for vehicle, _ in kit.statuses()}) == ["again", "past", "soon"]
        assert kit.rejects() == [("invalid", f"$.vehicle_status[{place}]") for place in (2, 3, 5)]

    def test_several_files_share_a_transaction(self, kit: Kit) -> None:
        names = ("a.json", "b.json")
        with kit.sink.transaction() as transaction:
            transaction.loaded([delivery(name).sha256 or b"" for name in names])
            for second, name in enumerate(names):
                transaction.begin_file(delivery(name), KIND)
                for some in parsed(report(60 * second)):
                    transaction.write(some)
            transaction.commit()
        assert [(name, state) for name, state, *_ in kit.ledger()] == [(name, "loaded") for name in names]

    def test_a_failure_is_recorded_and_a_later_load_replaces_it(self, kit: Kit) -> None:
        kit.sink.record_failure(delivery("a.json"), KIND.name, "no luck")
        assert kit.ledger() == [("a.json", "failed", 1, Counts())]
        assert self.loaded(kit, [delivery("a.json").sha256 or b""]) == set()
        write(kit, "a.json", report(0))
        assert kit.ledger() == [("a.json", "loaded", 2, Counts(1, 1, 0, 0))]

    def test_a_failure_of_a_loaded_file_leaves_it_loaded(self, kit: Kit) -> None:
        write(kit, "a.json", report(0))
        kit.sink.record_failure(delivery("a.json"), KIND.name, "no luck")
        assert kit.ledger() == [("a.json", "loaded", 2, Counts(1, 1, 0, 0))]

    @staticmethod
    def loaded(kit: Kit, digests: Sequence[bytes]) -> set[bytes]:
        with kit.sink.transaction() as transaction:
            return transaction.loaded(digests)


class KeyedSinkContract(SinkContract):
    """Tests for a sink that has its rows under keys: it knows duplicates, and records in conflict."""

    def test_the_counts_add_up(self, kit: Kit) -> None:
        write(kit, "a.json", report(0), report(60))
        counts = write(kit, "b.json", report(0), report(60, "parking"), report(120), {})
        assert counts == Counts(4, 1, 1, 2, conflict=1)
        assert kit.rejects() == [("conflict", "$.vehicle_status[1]"), ("invalid", "$.vehicle_status[3]")]
        assert list(kit.statuses().values()) == ["driving"] * 3

    def test_the_first_reject_of_each_file_is_known(self, kit: Kit) -> None:
        write(kit, "a.json", report(0))
        files = {
            "none.json": [report(60)],
            "conflict.json": [report(120), report(0, "parking"), {}],
            "invalid.json": [report(180), {}, report(0, "parking")],
        }
        with kit.sink.transaction() as transaction:
            transaction.loaded([delivery(name).sha256 or b"" for name in files])
            for name, elements in files.items():
                transaction.begin_file(delivery(name), KIND)
                for some in parsed(*elements):
                    transaction.write(some)
            transaction.finish()
            found = transaction.first_rejects()
            transaction.commit()
            assert transaction.first_rejects() == found
        assert found == [
            None,
            FirstReject(1, "$.vehicle_status[1]", "conflict"),
            FirstReject(1, "$.vehicle_status[1]", "invalid"),
        ]

    def test_of_equal_keys_in_a_file_the_first_counts(self, kit: Kit) -> None:
        counts = write(kit, "a.json", report(0), report(0), report(0, "parking"))
        assert counts == Counts(3, 1, 1, 1, conflict=1)
        assert list(kit.statuses().values()) == ["driving"]
