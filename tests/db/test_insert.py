"""Inserts into a table, and a table that does not take all rows."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import pytest
from psycopg2.extensions import cursor as Cursor

from db.connection import Database
from db.copy_format import CopyRows, copy_data
from db.insert import copy_rows
from db.tables import STATUS_HISTORY
from processing.errors import Misconfigured
from processing.vehicle_status import StatusReport

REPORTS = [StatusReport(f"car-{i}", datetime(2022, 6, 5, tzinfo=UTC), "x", None) for i in range(50)]


@pytest.fixture
def cursor(database: Database) -> Iterator[Cursor]:
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        yield cursor


def test_rows_that_a_trigger_swallows_are_noticed(cursor: Cursor) -> None:
    cursor.execute(
        """
        CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RETURN CASE NEW.vehicle_id WHEN 'car-7' THEN NULL ELSE NEW END; END
        $$;
        CREATE TRIGGER skip BEFORE INSERT ON vehicle_status_history_other
            FOR EACH ROW EXECUTE FUNCTION skip();
        """
    )
    packed = CopyRows()
    STATUS_HISTORY.pack(packed, REPORTS, 1)
    with pytest.raises(Misconfigured, match="vehicle_status_history took 49 of 50 rows"):
        copy_rows(cursor, STATUS_HISTORY, copy_data(packed.rows), len(REPORTS))
