"""Counts of detections by hour and type, gathered while they are written, and added up before COMMIT."""

from collections.abc import Collection
from typing import Any

from msgspec import json
from psycopg2.extensions import cursor as Cursor

from db.chunk import Chunk
from db.copy_format import hour_of, read_counted

#: Counts held in memory, and characters of their types.
_MOST = 50_000
_MOST_CHARACTERS = 4_000_000

_GIVEN = "json_to_recordset(%s) AS given (hour integer, object_type text, detections bigint, objects bigint)"

#: Emptied by COMMIT: the sessions of a pooler are not ours.
_SPILL = f"""
    CREATE TEMPORARY TABLE IF NOT EXISTS new_detections_hourly
        (hour integer, object_type text, detections bigint, objects bigint) ON COMMIT DROP;
    INSERT INTO new_detections_hourly SELECT * FROM {_GIVEN}
"""


class HourlyCounts:
    """The detections that one transaction inserted, by hour and type."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, str], list[int]] = {}
        self._characters = 0
        self._is_spilled = False

    def add(self, chunk: Chunk, without: Collection[int] = ()) -> None:
        """Counts the rows of a chunk, without those that were not inserted."""
        if len(without) == len(chunk.packed.rows):
            return
        for hour, numbers in chunk.hours.items():
            for counted, rows in numbers.items():
                object_type, value = read_counted(counted)
                self._count(hour, object_type, rows, rows * value)
        if chunk.hours:
            for _, record in chunk.of(without):
                self._uncount(record)

    def subtract(self, hour: int, object_type: str, rows: int, objects: int) -> None:
        """Counts rows that are deleted."""
        self._count(hour, object_type, -rows, -objects)

    def is_full(self) -> bool:
        return len(self._counts) >= _MOST or self._characters >= _MOST_CHARACTERS

    def spill(self, cursor: Cursor) -> None:
        """Keeps the counts in a temporary table: in that of all they would be locked until COMMIT."""
        cursor.execute(_SPILL, (self._take(),))
        self._is_spilled = True

    def flush(self, cursor: Cursor) -> None:
        """Adds the counts to those of all, in the order of their keys: all transactions lock them so."""
        if self._is_spilled:
            self.spill(cursor)
            cursor.execute(_add("new_detections_hourly"))
        elif self._counts:
            cursor.execute(_add(_GIVEN), (self._take(),))

    def _count(self, hour: int, object_type: str, rows: int, objects: int) -> None:
        known = self._counts.get((hour, object_type))
        if known is None:
            self._characters += len(object_type)
            self._counts[hour, object_type] = [rows, objects]
        else:
            known[0] += rows
            known[1] += objects

    def _uncount(self, record: Any) -> None:
        self._count(hour_of(record.detection_time), record.object_type, -1, -record.object_value)

    def _take(self) -> str:
        """Returns the counts as JSON, and forgets them."""
        listed = [
            {"hour": hour, "object_type": object_type, "detections": detections, "objects": objects}
            for (hour, object_type), (detections, objects) in self._counts.items()
            if detections
        ]
        self._counts.clear()
        self._characters = 0
        return json.encode(listed).decode()


def _add(source: str) -> str:
    return f"""
        INSERT INTO mobileye_data.detections_hourly AS old (hour, object_type, detections, objects)
        SELECT timestamptz '2000-01-01 00:00:00+00' + hour * interval '1 hour', object_type COLLATE "C",
               sum(detections), sum(objects)
        FROM {source}
        GROUP BY 1, 2
        ORDER BY 1, 2
        ON CONFLICT (hour, object_type) DO UPDATE SET
            detections = old.detections + excluded.detections,
            objects = old.objects + excluded.objects
        """
