"""The contract of a sink of streams: tests that each implementation passes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from msgspec import json

from processing.detection_events import KIND as DETECTIONS
from processing.message_batch import MessageBatch
from processing.sink import Counts
from processing.stream import Fenced, Gap, Message, Position, StreamSink, TopicPartition
from processing.stream_loader import LoadedEntry, StreamLoader
from processing.vehicle_status import KIND as STATUSES
from tests.support import detections, event, report, statuses

TOPICS = {"fleet.objects_detection_events": DETECTIONS, "fleet.vehicle_status": STATUSES}
EVENTS_0 = TopicPartition("fleet.objects_detection_events", "id-of-events", 0)
STATUS_0, STATUS_1 = (TopicPartition("fleet.vehicle_status", "id-of-status", number) for number in (0, 1))


class FoundReject(NamedTuple):
    """A reject as it is stored."""

    name: str
    path: str
    partition: int
    offset: int
    value: bytes | None


class Kit:
    """A sink, and ways to look at what it holds from outside."""

    sink: StreamSink

    def vehicles(self) -> list[str]:
        """Returns the vehicles with a status report, one for each report."""
        raise NotImplementedError

    def detected(self) -> int:
        """Returns the number of detections."""
        raise NotImplementedError

    def rejects(self) -> list[FoundReject]:
        """Returns the rejects in order."""
        raise NotImplementedError

    def gaps(self) -> list[tuple[int, int | None, str]]:
        """Returns the gaps: first offset, where it goes on, who accepted it."""
        raise NotImplementedError


def batch(*messages: tuple[TopicPartition, int, Any], before: int | None = None) -> MessageBatch:
    """Returns a batch of values, JSON unless they are bytes; before: the position; else its first offset."""
    made = MessageBatch(TOPICS, 10**9)
    for place, offset, value in messages:
        content = value if isinstance(value, bytes | None) else json.encode(value)
        made.add([Message(place, offset, content)], offset if before is None else before)
    return made


def load(kit: Kit, made: MessageBatch) -> list[LoadedEntry]:
    return StreamLoader(kit.sink).load(made)


def begin(kit: Kit, *places: TopicPartition, at: int = 0) -> None:
    kit.sink.begin([Position(place, at) for place in places])


def offsets(kit: Kit) -> dict[tuple[str, int], int]:
    found: Sequence[Position] = kit.sink.positions(list(TOPICS))
    return {(at.partition.topic_id, at.partition.partition): at.next_offset for at in found}


class StreamContract:
    """Tests for every sink of streams; a subclass has a fixture `kit`."""

    def test_rows_and_positions_are_there_together(self, kit: Kit) -> None:
        begin(kit, EVENTS_0, STATUS_0)
        found = load(kit, batch((STATUS_0, 0, report(0)), (STATUS_0, 1, report(1)), (EVENTS_0, 0, event(0))))
        assert [(entry.name, entry.kind, entry.counts) for entry in found] == [
            ("fleet.vehicle_status", "vehicles_status", Counts(2, 2)),
            ("fleet.objects_detection_events", "objects_detection", Counts(2, 2)),
        ]
        assert (len(kit.vehicles()), kit.detected()) == (2, 2)
        assert offsets(kit) == {("id-of-events", 0): 1, ("id-of-status", 0): 2}

    def test_what_is_not_committed_leaves_nothing(self, kit: Kit) -> None:
        begin(kit, STATUS_0)
        made = batch((STATUS_0, 0, report(0)))
        with kit.sink.transaction() as transaction:
            transaction.loaded([])
            transaction.move(made.moves)
        assert (kit.vehicles(), offsets(kit)) == ([], {("id-of-status", 0): 0})

    def test_whoever_is_behind_is_fenced_and_keeps_nothing(self, kit: Kit) -> None:
        begin(kit, STATUS_0, STATUS_1)
        load(kit, batch((STATUS_0, 0, report(0))))
        with pytest.raises(Fenced):
            load(
                kit, batch((STATUS_1, 0, report(1, vehicle="late")), (STATUS_0, 0, report(2, vehicle="late")))
            )
        assert "late" not in kit.vehicles()
        assert offsets(kit) == {("id-of-status", 0): 1, ("id-of-status", 1): 0}

    def test_offsets_without_a_message_are_passed_over(self, kit: Kit) -> None:
        begin(kit, STATUS_0)
        made = MessageBatch(TOPICS, 10**9)
        made.add([Message(STATUS_0, 5, json.encode(report(0)))], 0)
        made.reach(STATUS_0, 6, 9)
        load(kit, made)
        assert offsets(kit) == {("id-of-status", 0): 9}
        end = MessageBatch(TOPICS, 10**9)
        end.reach(STATUS_0, 9, 11)
        assert load(kit, end) == []
        assert offsets(kit) == {("id-of-status", 0): 11}

    def test_a_position_that_is_there_is_left(self, kit: Kit) -> None:
        begin(kit, STATUS_0, at=7)
        begin(kit, STATUS_0, STATUS_1, at=3)
        assert offsets(kit) == {("id-of-status", 0): 7, ("id-of-status", 1): 3}

    def test_each_reject_has_the_place_of_its_message_and_the_first_its_bytes(self, kit: Kit) -> None:
        begin(kit, EVENTS_0, STATUS_0)
        wrong = event(0, ("cars", 1), ("dogs", 2)) | {"note": 1}
        wrong["detections"] = [{"object_type": 1}, {"object_type": "cars", "object_value": 1}, {}]
        values = report(0), report(0, "parking"), b"{"
        load(kit, batch((EVENTS_0, 8, event(5)), (EVENTS_0, 9, wrong), before=0))
        load(kit, batch(*[(STATUS_0, number, value) for number, value in enumerate(values)], before=0))
        assert kit.rejects() == [
            FoundReject(EVENTS_0.topic, "$.detections[0].object_type", 0, 9, json.encode(wrong)),
            FoundReject(EVENTS_0.topic, "$.detections[2]", 0, 9, None),
            FoundReject(STATUS_0.topic, "$", 0, 1, json.encode(report(0, "parking"))),
            FoundReject(STATUS_0.topic, "$", 0, 2, b"{"),
        ]

    def test_a_document_is_loaded_as_a_file_and_once(self, kit: Kit) -> None:
        begin(kit, STATUS_0, EVENTS_0)
        document = statuses(report(0), report(1), {"vehicle_id": "x"})
        first, other = load(kit, batch((STATUS_0, 0, document), (STATUS_0, 1, detections(event(0)))))
        assert (first.name, first.counts) == ("fleet.vehicle_status/0/0", Counts(3, 2, 0, 1))
        assert (other.name, other.kind) == ("fleet.vehicle_status/0/1", "objects_detection")
        assert load(kit, batch((STATUS_0, 2, document), (STATUS_0, 3, document))) == []
        (found,) = kit.rejects()
        assert found[1:] == ("$.vehicle_status[2]", 0, 0, None)
        assert offsets(kit)["id-of-status", 0] == 4

    def test_of_equal_keys_the_message_that_comes_first_counts(self, kit: Kit) -> None:
        """Also where one is a record and the other one stands in a document."""
        begin(kit, STATUS_0)
        load(
            kit,
            batch(
                (STATUS_0, 0, report(0, "driving")),
                (STATUS_0, 1, statuses(report(0, "parking"), report(1, "parking"))),
                (STATUS_0, 2, report(1, "accident")),
            ),
        )
        assert [found.offset for found in kit.rejects()] == [1, 2]

    def test_a_gap_is_noted_and_the_position_is_behind_it(self, kit: Kit) -> None:
        begin(kit, STATUS_0, at=5)
        kit.sink.accept(Gap(STATUS_0, 5, 20, "retention"), "a person")
        assert offsets(kit) == {("id-of-status", 0): 20}
        with pytest.raises(Fenced):
            kit.sink.accept(Gap(STATUS_0, 5, 30, "retention"), "a person")
        kit.sink.accept(Gap(STATUS_0, 20, None, "deleted"), "a person")
        assert offsets(kit) == {}
        assert kit.gaps() == [(5, 20, "a person"), (20, None, "a person")]
