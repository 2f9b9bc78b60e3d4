"""The documents of the simulated fleet are well-formed, consistent and plausible."""

import re
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from commands.demo_fleet import DAY, DENSEST_DAY, HOUR, Clock, Document, Fleet

END = int(datetime(2022, 6, 5, 21, 2, 34, 546000, UTC).timestamp() * 1000)
TYPES = {"pedestrians", "cars", "trucks", "signs", "obstacles"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
VEHICLE = re.compile(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}")


def fleet(seed: int | None = 1, vehicles: int = 3000, history: int = 20_000, step: float = 5) -> Fleet:
    return Fleet(seed, vehicles, Clock(END, history, step))


def documents(made: Fleet, files: int, records: int = 12) -> list[Document]:
    return [made.statuses(records) if n % 3 == 1 else made.detections(records) for n in range(files)]


def elements(made: list[Document], key: str) -> list[dict[str, Any]]:
    return [element for document in made for element in document.get(key, [])]


def events(made: list[Document]) -> list[dict[str, Any]]:
    return elements(made, "objects_detection_events")


def reports(made: list[Document]) -> list[dict[str, Any]]:
    return elements(made, "vehicle_status")


def hours(times: list[str]) -> Counter[int]:
    return Counter(int(time[11:13]) for time in times)


def assert_event(event: dict[str, Any]) -> None:
    assert list(event) == ["vehicle_id", "detection_time", "detections"]
    assert VEHICLE.fullmatch(event["vehicle_id"])
    assert TIME.fullmatch(event["detection_time"])
    assert 1 <= len(event["detections"]) <= 5
    for detection in event["detections"]:
        assert list(detection) == ["object_type", "object_value"]
        assert type(detection["object_value"]) is int and detection["object_value"] > 0
    types = [detection["object_type"] for detection in event["detections"]]
    assert len(set(types)) == len(types) and set(types) <= TYPES


def assert_report(report: dict[str, Any]) -> None:
    assert list(report) == ["vehicle_id", "report_time", "status"]
    assert VEHICLE.fullmatch(report["vehicle_id"])
    assert TIME.fullmatch(report["report_time"])
    assert report["status"] in {"driving", "parking", "accident"}


def test_documents_are_exactly_as_documented():
    made = [msgspec.json.decode(msgspec.json.encode(document)) for document in documents(fleet(), 900)]
    assert {tuple(document) for document in made} == {("objects_detection_events",), ("vehicle_status",)}
    for event in events(made):
        assert_event(event)
    for report in reports(made):
        assert_report(report)


@pytest.mark.parametrize("records", [1, 2, 12, 500])
def test_a_document_has_the_requested_number_of_records(records):
    made = fleet()
    (event_list,) = made.detections(records).values()
    assert sum(len(event["detections"]) for event in event_list) == records
    assert len(made.statuses(records)["vehicle_status"]) == records


def test_all_types_statuses_and_sizes_occur():
    made = documents(fleet(vehicles=500), 1500)
    assert {detection["object_type"] for event in events(made) for detection in event["detections"]} == TYPES
    assert {len(event["detections"]) for event in events(made)} == {1, 2, 3, 4, 5}
    statuses = Counter(report["status"] for report in reports(made))
    assert 0 < statuses["accident"] < 0.02 * statuses.total()
    assert min(statuses["driving"], statuses["parking"]) > 0.2 * statuses.total()


def test_the_same_seed_makes_the_same_documents():
    assert documents(fleet(7), 30) == documents(fleet(7), 30)


@pytest.mark.parametrize("seeds", [(1, 2), (None, None)])
def test_fleets_with_different_seeds_or_none_share_no_vehicle(seeds):
    one, other = ({event["vehicle_id"] for event in events(documents(fleet(s), 30))} for s in seeds)
    assert one.isdisjoint(other)


@pytest.mark.parametrize("vehicles, history", [(3000, 20_000), (1, 20_000), (3, 1), (3000, 5_000)])
def test_no_key_is_repeated_and_times_increase(vehicles, history):
    made = documents(fleet(vehicles=vehicles, history=history, step=0.001), 1700)
    keys = [
        (event["vehicle_id"], event["detection_time"], detection["object_type"])
        for event in events(made)
        for detection in event["detections"]
    ]
    report_keys = [(report["vehicle_id"], report["report_time"]) for report in reports(made)]
    assert len(keys) + len(report_keys) == 1700 * 12 >= 20_000
    assert len(set(keys)) == len(keys) and len(set(report_keys)) == len(report_keys)
    for times in ([e["detection_time"] for e in events(made)], [r["report_time"] for r in reports(made)]):
        assert all(earlier < later for earlier, later in pairwise(times))


@pytest.mark.parametrize("vehicles", [1, 2, 10, 3000])
def test_only_driving_vehicles_detect(vehicles):
    status: dict[str, str] = {}
    checked = 0
    for document in documents(fleet(vehicles=vehicles), 1700):
        for event in document.get("objects_detection_events", []):
            checked += event["vehicle_id"] in status
            assert status.get(event["vehicle_id"], "driving") == "driving"
        status |= {report["vehicle_id"]: report["status"] for report in document.get("vehicle_status", [])}
    assert checked > 1000


def test_after_an_accident_a_vehicle_parks_before_it_drives_again():
    changes: Counter[tuple[str | None, str]] = Counter()
    status: dict[str, str] = {}
    for report in reports(documents(fleet(vehicles=50), 1700)):
        changes[status.get(report["vehicle_id"]), report["status"]] += 1
        status[report["vehicle_id"]] = report["status"]
    assert changes["driving", "accident"] and changes["accident", "parking"]
    assert not changes["accident", "driving"] and not changes["parking", "accident"]


def test_busy_hours_are_busier():
    made = documents(fleet(), 1667)
    by_hour = hours([event["detection_time"] for event in events(made)])
    assert len(by_hour) == 24
    noon, night = max(by_hour[h] for h in range(10, 15)), max(by_hour[h] for h in range(1, 5))
    assert min(by_hour[7], by_hour[8], by_hour[17]) > 1.4 * noon > 4 * night


def test_more_vehicles_drive_in_busy_hours():
    status: dict[str, str] = {}
    share: dict[int, float] = {}
    for report in reports(documents(fleet(vehicles=300), 1667)):
        status[report["vehicle_id"]] = report["status"]
        share[int(report["report_time"][11:13])] = Counter(status.values())["driving"] / 300
    assert min(share[8], share[17]) > 1.5 * share[12] > 2 * share[3]


def test_the_history_fills_the_last_day_and_later_times_are_evenly_spaced():
    clock = Clock(END, 1000, 5)
    times = [clock.at(record) for record in range(1100)]
    assert abs(times[0] - (END - DAY)) <= 1
    assert times == sorted(times) and END - HOUR < times[999] < END
    assert times[1000:] == [END + 5 * later for later in range(100)]


def test_a_history_too_dense_for_one_day_covers_more_days():
    assert abs(Clock(END, DENSEST_DAY, 0).at(0) - (END - 2 * DAY)) <= 1
