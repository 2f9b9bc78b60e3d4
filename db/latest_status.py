"""The latest status of each vehicle, gathered while reports are written."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import json
from psycopg2.extensions import cursor as Cursor

from db.copy_format import in_utc
from db.days import Span, spans_of, within
from db.tables import Table
from processing.records import Record

#: Vehicles held in memory, and characters of their names.
_MOST = 50_000
_MOST_CHARACTERS = 4_000_000


class LatestStatus:
    """The time of the latest row of each vehicle in one transaction, for each table that has_latest.

    The values may be large. They are not kept: the history has them by the time of the flush.
    """

    def __init__(self) -> None:
        self._times: dict[str, tuple[Table, dict[str, datetime]]] = {}
        self._vehicles = 0
        self._characters = 0

    def observe(self, table: Table, records: Sequence[Record]) -> None:
        """Takes records that are in the table now, written by this transaction or another."""
        if not (table.has_latest and records):
            return
        _, times = self._times.setdefault(table.name, (table, {}))
        for record, time in zip(records, map(table.time, records), strict=True):
            known = times.get(record.vehicle_id)
            if known is None:
                self._vehicles += 1
                self._characters += len(record.vehicle_id)
                times[record.vehicle_id] = time
            elif known < time:
                times[record.vehicle_id] = time

    def is_full(self) -> bool:
        return self._vehicles >= _MOST or self._characters >= _MOST_CHARACTERS

    def flush(self, cursor: Cursor) -> None:
        """Brings the tables up to date; an older report never overwrites a newer one.

        The statement runs late in the transaction, and takes the vehicles in order: two processes then lock
        them in the same order, and for a short time.
        """
        for _, (table, latest) in sorted(self._times.items()):
            times = {vehicle_id: in_utc(time) for vehicle_id, time in latest.items()}
            # One parameter: thousands of rows of values in the statement would take several times as long.
            listed = json.encode([{"v": vehicle_id, "t": time} for vehicle_id, time in times.items()])
            cursor.execute(_statement(table, spans_of(times.values())), (listed.decode(),))
        self._times.clear()
        self._vehicles = self._characters = 0


def if_newer(table: Table) -> str:
    """SQL: the end of an INSERT of newest rows, by which a newer row replaces an older one."""
    columns = table.columns[1:]
    return f"""
        ON CONFLICT (vehicle_id) DO UPDATE SET
            {", ".join(f"{column} = excluded.{column}" for column in columns)}
        WHERE old.{table.key[1]} < excluded.{table.key[1]}
        """


def recompute(cursor: Cursor, table: Table, file_ids: Sequence[int]) -> None:
    """Gives the vehicles whose latest row came from these files the newest row of their history, or none.

    To be called when their rows are deleted. The lock keeps loads out until COMMIT, and waits for those that
    have updated the table: one that had read a deleted row from the history would make it the latest again.
    """
    cursor.execute(f"LOCK TABLE {table.latest_name} IN SHARE ROW EXCLUSIVE MODE")
    cursor.execute(
        f"SELECT vehicle_id FROM {table.latest_name} WHERE file_id = ANY (%s) ORDER BY 1", (list(file_ids),)
    )
    vehicles = [vehicle_id for (vehicle_id,) in cursor.fetchall()]
    columns, time = table.list_columns(), table.key[1]
    cursor.execute(f"DELETE FROM {table.latest_name} WHERE vehicle_id = ANY (%s)", (vehicles,))
    cursor.execute(
        f"""
        INSERT INTO {table.latest_name} AS old ({columns})
        SELECT newest.*
        FROM unnest(%s::text[]) WITH ORDINALITY AS asked (vehicle_id, place)
        CROSS JOIN LATERAL (
            SELECT {columns} FROM {table.full_name} stored
            WHERE stored.vehicle_id = asked.vehicle_id
            ORDER BY {time} DESC
            LIMIT 1
        ) newest
        ORDER BY place
        {if_newer(table)}
        """,
        (vehicles,),
    )


def _statement(table: Table, spans: Sequence[Span]) -> str:
    columns, time = table.list_columns(), table.key[1]
    return f"""
        INSERT INTO {table.latest_name} AS old ({columns})
        SELECT stored.*
        FROM (SELECT * FROM json_to_recordset(%s) AS listed (v text, t timestamptz)
              ORDER BY v COLLATE "C") new
        CROSS JOIN LATERAL (
            SELECT {columns}
            FROM {table.full_name}
            WHERE vehicle_id = new.v AND {time} = new.t AND ({within(spans, time)})
            LIMIT 1
        ) stored
        {if_newer(table)}
        """
