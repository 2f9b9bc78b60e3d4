"""The latest status of a vehicle does not depend on the order in which reports arrive."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.processing.loading import HISTORY, Drops, S, fuzz
from tests.support import report, statuses


def test_an_older_report_never_overwrites_a_newer_one(drops: Drops) -> None:
    drops.load(vehicles_status_1=statuses(report(5, "parking")))
    drops.load(vehicles_status_2=statuses(report(4, "accident")))
    assert drops.rows("SELECT status, report_time = '2022-05-05 22:00:05.546Z' FROM vehicle_status") == [
        ("parking", True)
    ]
    assert drops.count(HISTORY) == 2


def test_a_conflict_does_not_change_the_latest_status(drops: Drops) -> None:
    drops.load(vehicles_status_1=statuses(report(5, "parking"), report(5, "accident")))
    drops.load(vehicles_status_2=statuses(report(5, "driving", km=1)))
    assert drops.rows("SELECT status, extra FROM vehicle_status") == [("parking", None)]


REPORTS = st.lists(
    st.builds(
        report,
        st.integers(0, 9),
        vehicle=st.sampled_from(["a", "b", "c"]),
        km=st.integers(0, 1),
    ),
    unique_by=lambda found: (found["vehicle_id"], found["report_time"]),
    min_size=1,
    max_size=12,
)


@pytest.mark.usefixtures("tiny")
@fuzz
@given(st.data())
def test_any_order_and_division_of_reports_gives_the_same_tables(drops: Drops, data: st.DataObject) -> None:
    drops.clear()
    reports = data.draw(REPORTS)
    twice = data.draw(st.permutations(reports + reports[: len(reports) // 2]))
    for number, batch in enumerate(divided(data, twice)):
        files = {f"{S}{number}_{i}.json": statuses(*part) for i, part in enumerate(divided(data, batch))}
        drops.load_until_done(files)
    latest: dict[str, Any] = {}
    for found in sorted(reports, key=lambda found: found["report_time"]):
        latest[found["vehicle_id"]] = (found["report_time"][11:23], found["status"], {"km": found["km"]})
    shown = "to_char(report_time, 'HH24:MI:SS.MS'), status, extra"
    assert {
        row[0]: row[1:] for row in drops.rows(f"SELECT vehicle_id, {shown} FROM vehicle_status")
    } == latest
    assert drops.count(HISTORY) == len(reports)
    assert drops.count("rejected_records") == 0


def divided(data: st.DataObject, items: list[Any]) -> list[list[Any]]:
    """The items in order, cut somewhere."""
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(items) - 1)), max_size=3)))
    return [items[a:b] for a, b in zip([0, *cuts], [*cuts, len(items)], strict=True) if items[a:b]]
