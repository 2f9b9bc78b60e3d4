"""The tables that records go to: their columns, and a record as a row of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

from processing.records import Detection, Record, StatusReport

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    """A table of records; its columns begin with the key, whose second part is the time.

    lines gives records of one time, told apart as text, in COPY's text format.
    """

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    key: tuple[str, ...]
    value: tuple[str, ...]
    row: Callable[[Any, int], Row]
    lines: Callable[[Sequence[Any], str, int], str]
    time: Callable[[Any], Any]

    @property
    def full_name(self) -> str:
        return f"mobileye_data.{self.name}"

    def list_columns(self) -> str:
        return ", ".join(self.columns)


def _detection_row(record: Detection, file_id: int) -> Row:
    return (
        record.vehicle_id,
        record.detection_time,
        record.object_type,
        record.object_value,
        record.extra,
        file_id,
    )


def _detection_lines(records: Sequence[Detection], time: str, file_id: int) -> str:
    head, tail = f"{_text(records[0].vehicle_id)}\t{time}\t", f"\t{file_id}\n"
    return "".join(
        [
            f"{head}{_repeated_text(r.object_type)}\t{r.object_value}"
            f"\t{_NULL if r.extra is None else _text(r.extra)}{tail}"
            for r in records
        ]
    )


def _report_row(record: StatusReport, file_id: int) -> Row:
    return record.vehicle_id, record.report_time, record.status, record.extra, file_id


def _report_lines(records: Sequence[StatusReport], time: str, file_id: int) -> str:
    (report,) = records
    head = f"{_text(report.vehicle_id)}\t{time}\t{_repeated_text(report.status)}"
    return f"{head}\t{_NULL if report.extra is None else _text(report.extra)}\t{file_id}\n"


_NULL = "\\N"


def _text(value: str) -> str:
    """Text as COPY's text format wants it; see "File Formats" at PostgreSQL's COPY."""
    if value.isalnum():
        return value
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


#: For texts of which there are few: looking one up takes half the time.
_repeated_text = lru_cache(maxsize=1000)(_text)


DETECTIONS = Table(
    name="objects_detection_events",
    columns=("vehicle_id", "detection_time", "object_type", "object_value", "extra", "file_id"),
    types=("text", "timestamptz", "text", "integer", "jsonb", "bigint"),
    key=("vehicle_id", "detection_time", "object_type"),
    value=("object_value", "extra"),
    row=_detection_row,
    lines=_detection_lines,
    time=attrgetter("detection_time"),
)

STATUS_HISTORY = Table(
    name="vehicle_status_history",
    columns=("vehicle_id", "report_time", "status", "extra", "file_id"),
    types=("text", "timestamptz", "text", "jsonb", "bigint"),
    key=("vehicle_id", "report_time"),
    value=("status", "extra"),
    row=_report_row,
    lines=_report_lines,
    time=attrgetter("report_time"),
)

TABLE_OF: dict[type[Record], Table] = {Detection: DETECTIONS, StatusReport: STATUS_HISTORY}
