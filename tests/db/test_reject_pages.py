"""Rejected records are read in pages of limited size."""

from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from random import Random

import pytest
from psycopg2.extensions import cursor as Cursor

from db import reject_pages
from db.connection import Database
from db.reject_pages import PAGE, PAGE_BYTES, Reject, Sized, pages
from tests.db.loading import load, sink_to
from tests.support import query, report, statuses

SEED = 20220605


@pytest.fixture
def cursor(database: Database) -> Iterator[Cursor]:
    with closing(database.connect(autocommit=True)) as connection, connection.cursor() as cursor:
        yield cursor


@pytest.mark.parametrize("size", [0, 1, 100, PAGE_BYTES // 10, PAGE_BYTES, 3 * PAGE_BYTES])
def test_a_page_is_never_larger_unless_a_single_record_is(size: int) -> None:
    random = Random(SEED)
    found = [Sized(1, position, random.randint(0, size)) for position in range(1000)]
    sizes = {record.key: record.bytes for record in found}
    split = list(pages(found))
    assert [key for page in split for key in page] == [record.key for record in found]
    for page in split:
        assert len(page) <= PAGE
        assert sum(sizes[key] for key in page) <= PAGE_BYTES or len(page) == 1
    # And no smaller than it need be.
    for page, then in pairwise(split):
        assert len(page) == PAGE or sum(sizes[key] for key in [*page, then[0]]) > PAGE_BYTES


def test_large_records_are_read_in_pages_of_limited_bytes(
    database: Database, cursor: Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reject_pages, "PAGE_BYTES", 10_000)
    with sink_to(database) as sink:
        load(sink, statuses(*(report(i, status=5, note="x" * 4000) for i in range(10))))  # type: ignore[arg-type]
    found = reject_pages.find(cursor, (-1, -1), is_open=True)
    read = [reject_pages.read(cursor, keys) for keys in pages(found)]
    assert [len(page) for page in read] == [2] * 5
    texts = [record.text for page in read for record in page]
    assert [len(text) for text in texts] == [record.bytes for record in found]


def test_bytes_are_counted_and_not_characters(database: Database, cursor: Cursor) -> None:
    with sink_to(database) as sink:
        load(sink, statuses(report(1, status=5, note="\U0001f600" * 1000)))  # type: ignore[arg-type]
    ((size,),) = query(
        database.url, "SELECT octet_length(original::text) FROM mobileye_data.rejected_records"
    )
    (found,) = reject_pages.find(cursor, (-1, -1), is_open=True)
    assert found.bytes == size > 4000


def test_an_edited_record_is_read_and_measured_as_edited(database: Database, cursor: Cursor) -> None:
    with sink_to(database) as sink:
        load(sink, statuses({}))
    query(database.url, """UPDATE mobileye_data.rejected_records SET edited = '{"a" :1}'""")
    (found,) = reject_pages.find(cursor, (-1, -1), is_open=True)
    assert found.bytes == 8
    assert reject_pages.read(cursor, [found.key]) == [
        Reject(found.file_id, 0, "x.json", "vehicles_status", '{"a" :1}')
    ]
