"""A record is stored as it was written, or rejected alone, with its original."""

from typing import Any

import pytest
from msgspec import json

import db.chunk
import db.conflicts
import db.connection
import db.writer
from tests.processing.loading import EVENTS, HISTORY, D, Drops, S, counts, filler, many_reports, states
from tests.support import VEHICLE, Server, detections, event, report, statuses


def test_unknown_fields_are_kept_in_extra(drops: Drops) -> None:
    counted = {"object_type": "cars", "object_value": 1, "lane": [1, {"x": None}]}
    drops.load(objects_detection_1=detections({**event(), "detections": [counted], "fw": "1.2 \\ \t 🚗"}))
    assert drops.values(f"SELECT extra FROM {EVENTS}") == [{"lane": [1, {"x": None}], "fw": "1.2 \\ \t 🚗"}]
    drops.load(vehicles_status_1=statuses(report(driver={"name": "\n"})))
    assert drops.values("SELECT extra FROM vehicle_status") == [{"driver": {"name": "\n"}}]


@pytest.mark.parametrize("copies", [1, 200])
def test_any_text_comes_back_as_it_was(drops: Drops, copies: int) -> None:
    text = "\\N \\. \t\n\r\b\f\v'\" %s {} 🚗 é ¼\x7f\u2028"
    reports = [report(i, text, vehicle=text, note=text) for i in range(copies)]
    for number in (1, 2):  # straight in, then beside what is there
        drops.load_one(
            f"{S}{number}.json", statuses(*reports[:number]) if copies == 1 else statuses(*reports * number)
        )
    assert drops.rows("SELECT vehicle_id, status, extra FROM vehicle_status") == [
        (text, text, {"note": text})
    ]
    assert drops.count("rejected_records") == 0
    assert drops.count(HISTORY) == copies if copies > 1 else drops.count("ingested_files") == 1


INSTANTS = {
    "2022-06-05T21:02:34.546Z": "2022-06-05 21:02:34.546+00",
    "2022-06-05T21:02:34.546+00:00": "2022-06-05 21:02:34.546+00",
    "2022-06-06T02:32:34.546+05:30": "2022-06-05 21:02:34.546+00",
    "2022-06-05T14:02:34.546-07:00": "2022-06-05 21:02:34.546+00",
    "2022-01-01T00:30:00+01:00": "2021-12-31 23:30:00+00",
    "0001-01-01T00:00:00Z": "0001-01-01 00:00:00+00",
    "9999-12-31T23:59:59.999999Z": "9999-12-31 23:59:59.999999+00",
}


@pytest.mark.parametrize("others", [0, 150])
def test_offsets_are_honoured_whatever_the_servers_settings_are(
    server: Server, own_loader: Drops, others: int
) -> None:
    name = own_loader.rows("SELECT current_database()")[0][0]
    server.execute(f"ALTER DATABASE {name} SET timezone = 'America/New_York'")
    server.execute(f"ALTER DATABASE {name} SET datestyle = 'SQL, DMY'")
    reports = [{**report(vehicle=instant), "report_time": instant} for instant in INSTANTS]
    own_loader.load(vehicles_status_1=statuses(*reports, *filler(statuses, others)))
    own_loader.load(vehicles_status_2=statuses(*reports, *filler(statuses, others), report()))  # and compared
    in_utc = "to_char(report_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
    found = own_loader.rows(f"SELECT vehicle_id, {in_utc} FROM {HISTORY} WHERE vehicle_id LIKE '%-%-%T%'")
    assert {instant: padded(shown) for instant, shown in found} == {
        instant: padded(shown.removesuffix("+00")) for instant, shown in INSTANTS.items()
    }
    assert own_loader.count("rejected_records") == 0


def padded(shown: str) -> str:
    return (
        shown if "." in shown and len(shown) == 26 else (shown + ("" if "." in shown else ".")).ljust(26, "0")
    )


BAD_REPORTS: dict[str, Any] = {
    "no offset": {**report(), "report_time": "2022-05-05T22:02:34.546"},
    "a date": {**report(), "report_time": "2022-05-05"},
    "now": {**report(), "report_time": "now"},
    "infinity": {**report(), "report_time": "infinity"},
    "seconds since 1970": {**report(), "report_time": 1651788154},
    "year 10000 of UTC": {**report(), "report_time": "9999-12-31T23:59:59-01:00"},
    "year 0 of UTC": {**report(), "report_time": "0001-01-01T00:00:00+01:00"},
    "no time": {"vehicle_id": VEHICLE, "status": "driving"},
    "a number for text": report(status=5),  # type: ignore[arg-type]
    "true for text": report(status=True),  # type: ignore[arg-type]
    "null for text": report(status=None),  # type: ignore[arg-type]
    "no text": report(status=""),
    "too long a text": report(status="x" * 256),
    "NUL in text": report(status="a\0b"),
    "NUL in a field's name": {**report(), "a\0b": 1},
    "NUL in an extra field": report(note=["a\0b"]),
    "a list": ["report"],
    "null": None,
    "a number": 7,
}


@pytest.mark.parametrize("bad", BAD_REPORTS.values(), ids=BAD_REPORTS.keys())
def test_a_bad_report_is_rejected_with_its_original(drops: Drops, bad: Any) -> None:
    (outcome,) = drops.load(vehicles_status_1=statuses(report(1), bad, report(2)))
    assert (outcome.state, counts(outcome)) == ("loaded", (3, 2, 0, 1))
    ((position, path, reason, detail, original),) = drops.rows(
        "SELECT position, path, reason, detail, original::text FROM rejected_records"
    )
    assert (position, reason, json.decode(original)) == (1, "invalid", bad)
    assert path.startswith("$.vehicle_status[1]")
    assert detail
    assert drops.count(HISTORY) == 2


BAD_VALUES: dict[str, Any] = {
    "text": "3",
    "a fraction": 2.5,
    "true": True,
    "null": None,
    "2^31": 2**31,
    "-2^31-1": -(2**31) - 1,
    "beyond 64 bits": 10**30,
}


@pytest.mark.parametrize("bad", BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_a_bad_value_costs_only_its_own_detection(drops: Drops, bad: Any) -> None:
    content = json.encode({"x": None}).replace(b"null", b"%d" % bad) if bad == 10**30 else None
    document = detections(event(1, ("cars", 1), ("signs", 0), ("trucks", 3)))
    written = content[len(b'{"x":') : -1] if content else json.encode(bad)
    document = document.replace(b'"object_value":0', b'"object_value":' + written)
    (outcome,) = drops.load(objects_detection_1=document)
    assert counts(outcome) == (3, 2, 0, 1)
    ((path, original),) = drops.rows("SELECT path, original::text FROM rejected_records")
    assert path == "$.objects_detection_events[0].detections[1].object_value"
    assert b'"object_value":' + written in original.encode()


def test_new_object_types_and_statuses_are_data(drops: Drops) -> None:
    drops.load(
        objects_detection_1=detections(event(1, ("unicorns", 1))), vehicles_status_1=statuses(report(1, "✈"))
    )
    assert drops.values(f"SELECT object_type FROM {EVENTS}") == ["unicorns"]
    assert drops.values("SELECT status FROM vehicle_status") == ["✈"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (f"{D}1", detections()),
        (f"{S}1", statuses()),
        ("x", statuses()),
        (f"{D}1", detections({**event(), "detections": []})),
    ],
)
def test_a_file_without_records_is_loaded(drops: Drops, name: str, content: bytes) -> None:
    (outcome,) = drops.load(**{name: content})
    assert (outcome.state, counts(outcome)) == ("loaded", (0, 0, 0, 0))
    assert drops.rows("SELECT state, rows_read FROM ingested_files") == [("loaded", 0)]
    assert drops.left() == []


def test_one_bad_record_in_100_000_costs_one_rejected_record(drops: Drops) -> None:
    records = many_reports(100_000)
    records[77_777] = {**records[77_777], "status": 5}
    (outcome,) = drops.load(vehicles_status_1=statuses(*records))
    assert counts(outcome) == (100_000, 99_999, 0, 1)
    assert drops.rows("SELECT position, path FROM rejected_records") == [
        (77_777, "$.vehicle_status[77777].status")
    ]
    assert drops.count(HISTORY) == 99_999
    assert drops.count("vehicle_status") == 28


def test_garbage_behind_100_000_rows_leaves_none_of_them(drops: Drops) -> None:
    outcome = drops.load_one("vehicles_status_1.json", statuses(*many_reports(100_000)) + b"x")
    assert outcome.state == "failed"
    assert drops.count(HISTORY) == drops.count("vehicle_status") == 0
    assert states(drops.load(vehicles_status_2=statuses(report()))) == ["loaded"]


def test_what_jsonb_can_not_hold_is_never_sent(drops: Drops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db.conflicts.ConflictResolver, "run", None)  # halving begins there
    content = statuses(*[report(second, km=0) for second in range(300)]).replace(b":0}", b":1e200000}")
    (outcome,) = drops.load(vehicles_status_1=content)
    assert (outcome.state, outcome.counts.rejected) == ("loaded", 300)


@pytest.mark.parametrize("lane", [{}, {"lane": 3}], ids=["fast", "with unknown fields"])
@pytest.mark.parametrize("count", [1, 1200], ids=["small", "several blocks"])
def test_events_without_detections_are_counted(drops: Drops, lane: dict[str, Any], count: int) -> None:
    found = [event(i, ("cars", 1), **lane) | ({"detections": []} if i % 3 else {}) for i in range(3 * count)]
    (outcome,) = drops.load(objects_detection_1=detections(*found))
    assert (outcome.counts.inserted, outcome.counts.empty) == (count, 2 * count)
    assert drops.rows("SELECT rows_read, elements_empty FROM ingested_files") == [(count, 2 * count)]
