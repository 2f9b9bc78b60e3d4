"""Random batches end in the tables as a model of the rules over dictionaries says."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from tests.processing.loading import EVENTS, HISTORY, D, Drops, S, fuzz, states
from tests.support import detections, event, report, statuses

COUNTED = st.tuples(st.sampled_from(["cars", "signs", "trucks"]), st.sampled_from([1, 1, 1, 2, "bad"]))
EVENT = st.one_of(
    st.builds(
        lambda second, vehicle, counted, more: {
            **event(second, vehicle=vehicle),
            "detections": [{"object_type": kind, "object_value": value} for kind, value in counted],
            **more,
        },
        st.integers(0, 3),
        st.sampled_from(["a", "b"]),
        st.lists(COUNTED, max_size=4),
        st.sampled_from([{}, {}, {"lane": 1}]),
    ),
    st.just({"vehicle_id": "a"}),
)
REPORT = st.one_of(
    st.builds(
        report,
        st.integers(0, 3),
        st.sampled_from(["driving", "driving", "parking", 5]),
        st.sampled_from(["a", "b"]),
    ),
    st.none(),
)
FILE = st.one_of(
    st.tuples(
        st.sampled_from([D, D, "x", S]), st.lists(EVENT, max_size=8).map(lambda events: detections(*events))
    ),
    st.tuples(
        st.sampled_from([S, S, "x", D]), st.lists(REPORT, max_size=8).map(lambda found: statuses(*found))
    ),
    st.tuples(st.sampled_from([S, D]), st.sampled_from([b"hello", b"[]", statuses(report()) + b"x"])),
)
BATCHES = st.lists(st.lists(FILE, min_size=1, max_size=5), min_size=1, max_size=4)


class Model:
    """The rules of DESIGN.md over dictionaries."""

    def __init__(self) -> None:
        self.detections: dict[tuple[str, str, str], Any] = {}
        self.history: dict[tuple[str, str], Any] = {}
        self.latest: dict[str, tuple[str, Any]] = {}
        self.ledger: dict[bytes, tuple[str, int, list[int]]] = {}
        self.rejected: list[tuple[bytes, int, str]] = []

    def take(self, name: str, content: bytes) -> str:
        digest = hashlib.sha256(content).digest()
        state, deliveries, counted = self.ledger.get(digest, ("", 0, [0, 0, 0, 0]))
        result = "duplicate" if state == "loaded" else self._load(name, digest, content)
        if result == "loaded":
            counted = self._counted
        kept = "loaded" if result == "duplicate" else result
        self.ledger[digest] = (kept, deliveries + 1, counted)
        return result

    def _load(self, name: str, digest: bytes, content: bytes) -> str:
        self._counted = [0, 0, 0, 0]
        self._digest = digest
        try:
            document = json.decode(content)
            ((key, elements),) = document.items()
        except Exception:  # noqa: BLE001
            return "failed"
        if name.startswith(S if key == EVENTS else D):
            return "failed"
        for element in elements:
            self._take_event(element) if key == EVENTS else self._take_report(element)
        return "loaded"

    def _take_event(self, element: Any) -> None:
        if "detections" not in element:
            return self._reject("invalid")
        extra = {"lane": 1} if "lane" in element else None
        for counted in element["detections"]:
            value, time = counted["object_value"], element["detection_time"]
            if value == "bad":
                self._reject("invalid")
            else:
                key = element["vehicle_id"], time, counted["object_type"]
                self._insert(self.detections, key, (value, extra))
        return None

    def _take_report(self, element: Any) -> None:
        if element is None or element["status"] == 5:
            return self._reject("invalid")
        key = vehicle, time = element["vehicle_id"], element["report_time"]
        if self._insert(self.history, key, element["status"]) and self.latest.get(vehicle, ("",))[0] < time:
            self.latest[vehicle] = time, element["status"]
        return None

    def _insert(self, table: dict[Any, Any], key: Any, value: Any) -> bool:
        if key not in table:
            table[key] = value
            self._count(1)
            return True
        if table[key] == value:
            self._count(2)
        else:
            self._reject("conflict")
        return False

    def _reject(self, reason: str) -> None:
        self.rejected.append((self._digest, self._counted[0], reason))
        self._count(3)

    def _count(self, what: int) -> None:
        self._counted[0] += 1
        self._counted[what] += 1


def compare(drops: Drops, model: Model) -> None:
    time = 'to_char({}, \'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"\')'
    found = drops.rows(
        f"SELECT vehicle_id, {time.format('detection_time')}, object_type, object_value, extra FROM {EVENTS}"
    )
    assert {row[:3]: row[3:] for row in found} == model.detections
    found = drops.rows(f"SELECT vehicle_id, {time.format('report_time')}, status FROM {HISTORY}")
    assert {row[:2]: row[2] for row in found} == model.history
    found = drops.rows(f"SELECT vehicle_id, {time.format('report_time')}, status FROM vehicle_status")
    assert {row[0]: row[1:] for row in found} == model.latest
    found = drops.rows(
        """
        SELECT sha256, state, deliveries, rows_read, rows_inserted, rows_duplicate, rows_rejected
        FROM ingested_files
        """
    )
    assert {bytes(row[0]): (row[1], row[2], list(row[3:])) for row in found} == model.ledger
    found = drops.rows(
        "SELECT sha256, position, reason FROM rejected_records JOIN ingested_files USING (file_id)"
    )
    assert sorted((bytes(row[0]), *row[1:]) for row in found) == sorted(model.rejected)
    assert drops.wrong_hours() == []


def run_against_model(drops: Drops, batches: list[list[tuple[str, bytes]]]) -> None:
    drops.clear()
    model = Model()
    for number, batch in enumerate(batches):
        files = {f"{prefix}{number}_{i}.json": content for i, (prefix, content) in enumerate(batch)}
        outcomes = drops.load_until_done(files)
        assert [model.take(outcome.name, files[outcome.name]) for outcome in outcomes] == states(outcomes)
        assert drops.left() == []
    compare(drops, model)


@fuzz
@given(BATCHES)
def test_random_batches_end_as_the_rules_say(drops: Drops, batches: list[list[tuple[str, bytes]]]) -> None:
    run_against_model(drops, batches)


@pytest.mark.usefixtures("tiny")
@fuzz
@given(BATCHES)
def test_random_batches_end_as_the_rules_say_by_every_path(
    drops: Drops, batches: list[list[tuple[str, bytes]]]
) -> None:
    run_against_model(drops, batches)
