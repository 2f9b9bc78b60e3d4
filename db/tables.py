"""The tables of records: each is declared here by its columns, and all else derives from that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any

from db.copy_format import CopyRows, in_utc, pack_detections, pack_reports
from processing.records import Record

Row = tuple[Any, ...]

#: Characters of stored unknown fields that the detail of a conflict shows.
MAX_SHOWN = 200


@dataclass(frozen=True)
class Table:
    """A table of records, partitioned by UTC day.

    fields are the fields of the record with their SQL types, in order: vehicle_id, the time, one or more.
    The columns extra and file_id follow. key begins with vehicle_id and the time. With has_latest the newest
    row of each vehicle is also in a table with the same columns, without "_history" in its name.
    pack appends records as rows of COPY; one for all tables would take a third more time (measured).
    """

    name: str
    fields: Mapping[str, str]
    key: tuple[str, ...]
    pack: Callable[[CopyRows, Sequence[Any], int], None]
    has_latest: bool = False

    @cached_property
    def types(self) -> dict[str, str]:
        """The SQL type of each column, in order."""
        return {**self.fields, "extra": "jsonb", "file_id": "bigint"}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.types)

    @cached_property
    def value(self) -> tuple[str, ...]:
        """The columns that a row with the same key must share to be a duplicate."""
        return tuple(name for name in self.columns if name not in (*self.key, "file_id"))

    @cached_property
    def time(self) -> Callable[[Any], Any]:
        """Returns the time of a record."""
        return attrgetter(self.key[1])

    @cached_property
    def row(self) -> Callable[[Record, int], Row]:
        """Makes a record a row of values, in the order of the columns."""
        fields = attrgetter(*self.columns[:-1])

        def row(record: Record, file_id: int) -> Row:
            vehicle_id, time, *values = fields(record)
            return vehicle_id, in_utc(time), *values, file_id

        return row

    @cached_property
    def full_name(self) -> str:
        return f"mobileye_data.{self.name}"

    @cached_property
    def latest_name(self) -> str:
        """The full name of the table with the newest row of each vehicle."""
        return self.full_name.removesuffix("_history")

    def list_columns(self) -> str:
        return ", ".join(self.columns)

    def difference(self, new: str, old: str) -> str:
        """SQL: null if two rows have the same value, else that of the old one, cut to be shown."""
        values = [f"{{0}}.{column}" for column in self.value]
        new_value, old_value = (", ".join(values).format(side) for side in (new, old))
        shown = ", ' ', ".join(f"'{column}=', {_shown(old, column)}" for column in self.value)
        return f"CASE WHEN ({new_value}) IS DISTINCT FROM ({old_value}) THEN concat({shown}) END"


def _shown(side: str, column: str) -> str:
    """SQL: a value as the detail of a conflict shows it. The parser limits all columns but extra."""
    value = f"{side}.{column}"
    if column != "extra":
        return value
    text, ellipsis = f"{value}::text", f"CASE WHEN length({value}::text) > {MAX_SHOWN} THEN '…' ELSE '' END"
    return f"coalesce(left({text}, {MAX_SHOWN}) || {ellipsis}, 'null')"


DETECTIONS = Table(
    name="objects_detection_events",
    fields={
        "vehicle_id": "text",
        "detection_time": "timestamptz",
        "object_type": "text",
        "object_value": "integer",
    },
    key=("vehicle_id", "detection_time", "object_type"),
    pack=pack_detections,
)

STATUS_HISTORY = Table(
    name="vehicle_status_history",
    fields={"vehicle_id": "text", "report_time": "timestamptz", "status": "text"},
    key=("vehicle_id", "report_time"),
    pack=pack_reports,
    has_latest=True,
)

#: The table of each kind, by the kind's name.
Tables = Mapping[str, Table]

TABLES: Tables = {"objects_detection": DETECTIONS, "vehicles_status": STATUS_HISTORY}
