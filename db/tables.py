"""The tables that records go to: their columns, and a record as a row of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from db.copy_format import CopyRows, in_utc, pack_detections, pack_reports
from processing.records import Detection, Record, StatusReport

Row = tuple[Any, ...]

#: Characters of stored unknown fields that the detail of a conflict shows.
MAX_SHOWN = 200


@dataclass(frozen=True)
class Table:
    """A table of records; its columns begin with the key, whose second part is the time.

    row makes a record one of execute_values, pack makes some rows of COPY.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    value: tuple[str, ...]
    row: Callable[[Any, int], Row]
    pack: Callable[[CopyRows, Sequence[Any], int], None]
    time: Callable[[Any], Any]

    @property
    def full_name(self) -> str:
        return f"mobileye_data.{self.name}"

    def list_columns(self) -> str:
        return ", ".join(self.columns)

    def difference(self, new: str, old: str) -> str:
        """SQL: null if two rows have the same value, else that of the old one, cut to be shown."""
        values = [f"{{0}}.{column}" for column in self.value]
        new_value, old_value = (", ".join(values).format(side) for side in (new, old))
        shown = ", ' ', ".join(f"'{column}=', {_shown(old, column)}" for column in self.value)
        return f"CASE WHEN ({new_value}) IS DISTINCT FROM ({old_value}) THEN concat({shown}) END"


def _shown(side: str, column: str) -> str:
    """The parser has bounded all but the unknown fields."""
    value = f"{side}.{column}"
    if column != "extra":
        return value
    text, ellipsis = f"{value}::text", f"CASE WHEN length({value}::text) > {MAX_SHOWN} THEN '…' ELSE '' END"
    return f"coalesce(left({text}, {MAX_SHOWN}) || {ellipsis}, 'null')"


def _detection_row(record: Detection, file_id: int) -> Row:
    return (
        record.vehicle_id,
        in_utc(record.detection_time),
        record.object_type,
        record.object_value,
        record.extra,
        file_id,
    )


def _report_row(record: StatusReport, file_id: int) -> Row:
    return record.vehicle_id, in_utc(record.report_time), record.status, record.extra, file_id


DETECTIONS = Table(
    name="objects_detection_events",
    columns=("vehicle_id", "detection_time", "object_type", "object_value", "extra", "file_id"),
    key=("vehicle_id", "detection_time", "object_type"),
    value=("object_value", "extra"),
    row=_detection_row,
    pack=pack_detections,
    time=attrgetter("detection_time"),
)

STATUS_HISTORY = Table(
    name="vehicle_status_history",
    columns=("vehicle_id", "report_time", "status", "extra", "file_id"),
    key=("vehicle_id", "report_time"),
    value=("status", "extra"),
    row=_report_row,
    pack=pack_reports,
    time=attrgetter("report_time"),
)

TABLE_OF: dict[type[Record], Table] = {Detection: DETECTIONS, StatusReport: STATUS_HISTORY}
