"""Records that are dated too far ahead of the database's clock."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from db.connection import Database
from db.sink import PostgresSink
from tests.db.loading import load
from tests.support import Daemon, detections, event, query, report, statuses, until

FAR = "2094-01-01T00:00:00Z"


@pytest.fixture
def bounded(database: Database) -> Iterator[PostgresSink]:
    with closing(PostgresSink(database, max_future_hours=24)) as sink:
        yield sink


def reports(count: int, **more: Any) -> list[dict[str, Any]]:
    return [report(i % 3600, vehicle=f"car-{i // 3600}", **more) for i in range(count)]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("others", [0, 5, 12_000])
def test_only_they_are_rejected_and_no_day_is_made_for_them(
    database: Database, bounded: PostgresSink, others: int
) -> None:
    late = {**report(vehicle="car-0"), "report_time": FAR}
    (counts,) = load(bounded, statuses(*reports(others), late))
    assert (counts.inserted, counts.rejected) == (others, 1)
    ((path, reason, original),) = query(
        database.url, "SELECT path, reason, original->>'report_time' FROM mobileye_data.open_rejects"
    )
    assert (path, reason, original) == (f"$.vehicle_status[{others}]", "invalid", FAR)
    days = query(database.url, "SELECT count(*) FROM pg_class WHERE relname ~ '_2094'")
    assert days == [(0,)]
    latest = "SELECT max(report_time) FROM mobileye_data.vehicle_status"
    assert (query(database.url, latest)[0][0] or datetime.min.replace(tzinfo=UTC)) < datetime.now(UTC)


def test_detections_of_an_event_are_rejected_one_by_one(database: Database, bounded: PostgresSink) -> None:
    late = {**event(0, ("cars", 1), ("signs", 2)), "detection_time": FAR}
    (counts,) = load(bounded, detections(event(1, ("cars", 1)), late))
    assert (counts.inserted, counts.rejected) == (1, 2)
    paths = query(database.url, "SELECT path FROM mobileye_data.rejected_records ORDER BY 1")
    assert paths == [(f"$.objects_detection_events[1].detections[{place}]",) for place in (0, 1)]


def test_a_duplicate_beside_one_stays_a_duplicate(bounded: PostgresSink) -> None:
    late = {**report(vehicle="x"), "report_time": FAR}
    assert load(bounded, statuses(report()))[0].inserted == 1
    (counts,) = load(bounded, statuses(report(), late, report(1)))
    assert (counts.inserted, counts.duplicate, counts.rejected) == (1, 1, 1)


def test_the_daemon_has_a_bound_and_a_replay_may_have_none(tmp_path: Path, database: Database) -> None:
    daemon = Daemon(tmp_path, database.url)
    soon = (datetime.now(UTC) + timedelta(hours=20)).isoformat()
    late = [{**report(vehicle=name), "report_time": time} for name, time in (("a", FAR), ("b", soon))]
    checked = daemon.command("check", str(daemon.drop("vehicles_status_1.json", statuses(*late))))
    assert "(MAX_FUTURE_HOURS), got a later one" in checked.stdout
    daemon.start()
    until(lambda: " rejected=1 " in daemon.log())
    assert daemon.stop() == 0
    assert daemon.command("replay", "rejected").returncode == 1
    again = Daemon(tmp_path, database.url, MAX_FUTURE_HOURS=0)
    assert again.command("replay", "rejected").returncode == 0
    stored = query(database.url, "SELECT vehicle_id FROM mobileye_data.vehicle_status ORDER BY 1")
    assert stored == [("a",), ("b",)]
    assert again.command("verify").returncode == 0
