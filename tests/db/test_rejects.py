"""Rejected records: kept as they were, whatever they hold."""

from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest

from db import rejects
from db.connection import Database
from db.ledger import Entry
from processing.records import Rejected
from processing.validation import UniqueKeys
from tests.db.loading import delivery
from tests.support import query

ENTRY = Entry(7, delivery(b"x"), "vehicles_status")


def store(database: Database, *records: Rejected) -> None:
    with closing(database.connect()) as connection, connection, connection.cursor() as cursor:
        rejects.add(cursor, [(ENTRY, record) for record in records])


def stored(database: Database, columns: str) -> list[tuple[Any, ...]]:
    return query(database.url, f"SELECT {columns} FROM mobileye_data.rejected_records ORDER BY position")


def twice() -> UniqueKeys:
    found = UniqueKeys()
    found["a"] = 1
    found["a"] = 2
    return found


def test_a_reject_is_kept_with_its_place_and_its_reason(database: Database) -> None:
    store(
        database,
        Rejected(3, "$.vehicle_status[3].status", "invalid", "Expected `str`, got `int`", {"status": 5}),
    )
    columns = "file_id, position, path, reason, detail, original, resolved_at"
    assert stored(database, columns) == [
        (7, 3, "$.vehicle_status[3].status", "invalid", "Expected `str`, got `int`", {"status": 5}, None)
    ]


@pytest.mark.parametrize(
    ("original", "text"),
    [
        (None, "null"),
        ([], "[]"),
        ({'é\n"\\': "🚗 %s"}, '{"é\\n\\"\\\\":"🚗 %s"}'),
        ({"a\0": "b\0"}, '{"a\\u0000":"b\\u0000"}'),
        (10**30, "1" + "0" * 30),
        (Decimal("1E+999999999"), "1E+999999999"),
        (Decimal("1.10"), "1.10"),
        (-0.0, "-0.0"),
        (twice(), '{"a":1,"a":2}'),
    ],
)
def test_an_original_is_kept_as_it_was_written(database: Database, original: Any, text: str) -> None:
    store(database, Rejected(0, "$", "invalid", "x", original))
    assert stored(database, "original::text") == [(text,)]


def test_nul_in_a_path_is_shown_as_json_writes_it(database: Database) -> None:
    store(database, Rejected(0, "$.vehicle_status[0].a\0b", "invalid", "x", None))
    assert stored(database, "path") == [("$.vehicle_status[0].a\\u0000b",)]


def test_thousands_are_kept_at_once(database: Database) -> None:
    store(database, *[Rejected(i, "$", "invalid", "x", i) for i in range(2500)])
    assert stored(database, "original::text::integer") == [(i,) for i in range(2500)]


def test_none_is_nothing(database: Database) -> None:
    store(database)
    assert stored(database, "position") == []
