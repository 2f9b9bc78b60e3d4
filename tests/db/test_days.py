"""Conditions on days, and the partitions that a statement then reads."""

from datetime import date, timedelta

import pytest

from db.connection import Database
from db.days import day_spans, within
from tests.support import query

DAY = date(2022, 6, 5)


def test_consecutive_days_are_one_span() -> None:
    days = [DAY + timedelta(day) for day in (5, 0, 1, 2, 7, 1)]
    assert day_spans(days) == [
        ("2022-06-05 00:00:00+00", "2022-06-08 00:00:00+00"),
        ("2022-06-10 00:00:00+00", "2022-06-11 00:00:00+00"),
        ("2022-06-12 00:00:00+00", "2022-06-13 00:00:00+00"),
    ]
    assert day_spans([]) == []


def test_the_span_of_the_last_day_ends_at_infinity() -> None:
    assert day_spans([date.max]) == [("9999-12-31 00:00:00+00", "infinity")]
    assert day_spans([date.min]) == [("0001-01-01 00:00:00+00", "0001-01-02 00:00:00+00")]


@pytest.mark.parametrize(
    ("asked", "looked_at"),
    [
        ((0,), ["20220605"]),
        ((0, 4), ["20220605", "20220609"]),
        ((0, 1, 4), ["20220605", "20220606", "20220609"]),
        ((4, 5), ["20220609", "other"]),
        ((300,), ["other"]),
    ],
)
def test_other_partitions_are_left_out_when_the_statement_is_planned(
    database: Database, asked: tuple[int, ...], looked_at: list[str]
) -> None:
    for day in range(5):
        partition = f"'vehicle_status_history', '{DAY + timedelta(day)}'"
        query(database.url, f"SELECT mobileye_data.add_partition({partition})")
    bounds = within(day_spans([DAY + timedelta(day) for day in asked]), "report_time")
    statement = f"EXPLAIN SELECT FROM mobileye_data.vehicle_status_history WHERE {bounds}"
    plan = " ".join(line for (line,) in query(database.url, statement))
    there = ["20220605", "20220606", "20220607", "20220608", "20220609", "other"]
    assert [name for name in there if f"vehicle_status_history_{name} " in plan] == looked_at
