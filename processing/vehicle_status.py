"""Reads vehicle status: one array element is one report of one vehicle."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import count
from typing import Any

from msgspec import DecodeError, Struct
from msgspec.json import Decoder

from processing.records import Decoded, Instant, Kind, Parsed, Record, Rejected, Text
from processing.spellings import read_as
from processing.validation import (
    Invalid,
    check_text,
    check_year,
    count_keys,
    extra_json,
    held,
    is_common_year,
    is_plain,
    to_json,
    unknown_fields,
)

KEY = "vehicle_status"


class StatusReport(Record, frozen=True, gc=False):
    """One report of one vehicle: a row of vehicle_status_history."""

    report_time: datetime
    status: str
    extra: str | None


class Report(Struct):
    """One array element, as it stands in the file."""

    vehicle_id: Text
    report_time: Instant
    status: Text


class FastReport(Report, forbid_unknown_fields=True):
    """A report with no other fields."""


def decode_fast(array: bytes) -> Decoded | None:
    """The number and records of reports, from their text; None unless each is as documented."""
    try:
        reports = _FAST.decode(array)
    except (DecodeError, UnicodeDecodeError):
        return None
    records: list[Record] = [
        StatusReport(report.vehicle_id, report.report_time, report.status, None) for report in reports
    ]
    common = all(map(is_common_year, [report.report_time for report in reports]))
    return Decoded(len(reports), records) if is_plain(array) and common else None


def fast_strings(reports: int, _: int) -> int:
    """A report has 3 keys and 3 texts."""
    return 6 * reports


_FAST = Decoder(list[FastReport])


def parse(items: Iterable[Any]) -> Iterator[Parsed]:
    """Each element of the array as a record or a reject."""
    return map(read_report, count(), count(), items)  # holds none while the next is read


def read_report(index: int, position: int, item: Any) -> Parsed:
    """One report, or why it can't be loaded."""
    try:
        report, extra, keys = flawless(item)
    except Invalid as flaw:
        size = len(to_json(item))
        original = held(item, size)
        rejected = Rejected(position, f"$.{KEY}[{index}]{flaw.path}", "invalid", flaw.detail, original)
        return Parsed(index, position, original, [], [rejected], count_keys(item), size)
    record = StatusReport(report.vehicle_id, report.report_time, report.status, extra)
    if extra is None:
        return Parsed(index, position, item, [record], [], keys)
    return Parsed(index, position, held(item, len(extra)), [record], [], keys, len(extra))


def flawless(item: Any) -> tuple[Report, str | None, int]:
    """A report, its extra fields and its number of keys; raises Invalid."""
    report = read_as(Report, item)
    check_text(report.vehicle_id, ".vehicle_id")
    check_text(report.status, ".status")
    check_year(report.report_time, ".report_time")
    if len(item) == 3 and type(item) is dict:
        return report, None, 3
    return report, extra_json(unknown_fields(item, Report.__struct_fields__)), count_keys(item)


def locate(parsed: Parsed, offsets: Iterable[int]) -> Iterator[tuple[str, Any]]:
    """JSON path and original of reports, by their places in their elements, in order."""
    elements = parsed.elements()
    return ((f"$.{KEY}[{parsed.index + offset}]", elements[offset]) for offset in offsets)


KIND = Kind(
    "vehicles_status",
    "vehicles_status_",
    KEY,
    Report,
    StatusReport,
    parse,
    decode_fast,
    fast_strings,
    locate,
)
