"""Failures that need a person, until they are acknowledged or the file is loaded."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from psycopg2.extensions import cursor as Cursor

from db.connection import Database
from db.failures import dismiss, failures
from db.queries import totals
from tests.db.loading import delivery, load, sink_to
from tests.support import query, report, statuses


@pytest.fixture
def failed(database: Database) -> Database:
    """Two failed files, one of them without a digest."""
    with sink_to(database) as sink:
        sink.record_failure(delivery(b"a", "a.json"), None, "no JSON")
        sink.record_failure(delivery(b"", "link.json"), None, "no file")
    return database


@pytest.fixture
def cursor(failed: Database) -> Iterator[Cursor]:
    with closing(failed.connect(autocommit=True)) as connection, connection.cursor() as cursor:
        yield cursor


def open_failures(cursor: Cursor) -> list[str]:
    names = [name for name, _, _, is_dismissed in failures(cursor) if not is_dismissed]
    assert totals(cursor.connection).open_failures == len(names)
    return names


def test_one_is_dismissed_by_its_name_with_who_and_when(failed: Database, cursor: Cursor) -> None:
    assert open_failures(cursor) == ["a.json", "link.json"]
    assert dismiss(cursor, "link.json", None, "me@here") == 1
    assert open_failures(cursor) == ["a.json"]
    entry = (
        "SELECT dismissed_by, dismissed_at >= finished_at FROM mobileye_data.ingested_files WHERE name = %s"
    )
    assert query(failed.url, entry, ["link.json"]) == [("me@here", True)]
    assert query(failed.url, entry, ["a.json"]) == [(None, None)]


def test_one_is_dismissed_by_its_bytes_under_another_name(cursor: Cursor) -> None:
    assert dismiss(cursor, "a_1.json", delivery(b"a", "").sha256, "me") == 1
    assert open_failures(cursor) == ["link.json"]


def test_the_first_who_dismissed_one_stays_noted(failed: Database, cursor: Cursor) -> None:
    assert [dismiss(cursor, "a.json", None, who) for who in ("first", "second")] == [1, 0]
    noted = "SELECT dismissed_by FROM mobileye_data.ingested_files WHERE name = 'a.json'"
    assert query(failed.url, noted) == [("first",)]


def test_one_that_fails_again_is_open_again(failed: Database, cursor: Cursor) -> None:
    dismiss(cursor, "a.json", None, "me")
    with sink_to(failed) as sink:
        sink.record_failure(delivery(b"a", "a.json"), None, "no JSON")
    assert "a.json" in open_failures(cursor)


def test_one_that_was_loaded_later_under_its_name_is_not_open(failed: Database, cursor: Cursor) -> None:
    with sink_to(failed) as sink:
        sink.record_failure(delivery(b"x", "x.json"), None, "no JSON")
        assert "x.json" in open_failures(cursor)
        load(sink, statuses(report()))
    assert "x.json" not in open_failures(cursor)


def test_a_loaded_file_can_not_be_dismissed(failed: Database, cursor: Cursor) -> None:
    with sink_to(failed) as sink:
        load(sink, statuses(report()))
    assert dismiss(cursor, "x.json", None, "me") == 0
