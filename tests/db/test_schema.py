"""schema.sql on a real server: applied twice and at once, explained, and answering questions by indexes."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from db import schema
from db.connection import Database
from processing.errors import Misconfigured
from tests.db.loading import load, sink_to
from tests.support import ROOT, VEHICLE, Server, detections, event, query, report, statuses, until

SQL = (ROOT / "schema.sql").read_text()


def apply(database: Database) -> bool:
    with closing(database.connect()) as connection:
        return schema.apply(connection)


@pytest.fixture
def filled(database: Database) -> Database:
    """Two kinds of object over three hours, and a vehicle that parks."""
    hours = [event(second, ("cars", 1), ("signs", 2)) for second in (0, 1, 3599)]
    later = {**event(0, ("cars", 10)), "detection_time": "2022-06-05T23:30:00+00:00"}
    with sink_to(database) as sink:
        load(sink, detections(*hours, later))
        load(
            sink,
            statuses(report(1), report(2, "parking"), report(1, "parking", "b"), report(1, "driving", "c")),
        )
    return database


def test_it_is_applied_once(empty_database: Database) -> None:
    assert apply(empty_database)
    assert not apply(empty_database)


def test_it_is_safe_to_apply_twice(filled: Database) -> None:
    for _ in range(2):
        query(filled.url, SQL)
    assert query(filled.url, "SELECT count(*) FROM mobileye_data.objects_detection_events") == [(7,)]


def test_a_changed_one_is_applied_over_the_old(
    filled: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changed = tmp_path / "schema.sql"
    changed.write_text(SQL + "\nCREATE TABLE IF NOT EXISTS mobileye_data.more ();")
    monkeypatch.setattr(schema, "_SCHEMA_SQL", changed)
    assert apply(filled)
    assert not apply(filled)
    assert query(filled.url, "SELECT to_regclass('mobileye_data.more')::text") == [("mobileye_data.more",)]


def use_version(number: int, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    changed = folder / f"schema{number}.sql"
    changed.write_text(re.sub(r"schema \d+", f"schema {number}", SQL, count=1))
    monkeypatch.setattr(schema, "_SCHEMA_SQL", changed)


def test_older_code_refuses_newer_tables_and_leaves_them(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_version(99, monkeypatch, tmp_path)
    assert apply(empty_database)
    comment = "SELECT obj_description('mobileye_data'::regnamespace)"
    made = query(empty_database.url, comment)
    use_version(98, monkeypatch, tmp_path)
    with pytest.raises(Misconfigured, match=r"of schema 99, which a newer .* this one knows schema 98"):
        apply(empty_database)
    query(empty_database.url, "DROP VIEW mobileye_data.open_rejects")
    with pytest.raises(Misconfigured, match="schema 99"):
        apply(empty_database)
    assert query(empty_database.url, comment) == made


@pytest.mark.parametrize("older", ["schema 2", "schema 0123456789abcdef", "schema 0123456789012345", None])
def test_newer_code_applies_itself_over_older_tables(database: Database, older: str | None) -> None:
    with closing(database.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            "COMMENT ON SCHEMA mobileye_data IS %s", (older and f"Mobileye Data Processing System, {older}",)
        )
    assert apply(database)
    assert not apply(database)


OBJECTS = {
    "TABLE": [
        "ingested_files",
        "ledger_name",
        "rejected_records",
        "objects_detection_events",
        "objects_detection_events_other",
        "vehicle_status_history",
        "vehicle_status_history_other",
        "vehicle_status",
        "detections_hourly",
        "moves",
    ],
    "VIEW": [
        "detections_by_hour",
        "vehicles_by_status",
        "vehicle_timeline",
        "open_rejects",
        "rejects_by_reason",
    ],
    "SEQUENCE": ["file_ids"],
    "FUNCTION": [
        "accidents",
        "add_partition",
        "begin_move",
        "bring_home",
        "copy_blocks",
        "end_move",
        "finish_move",
        "is_full",
        "is_of_day",
        "make_partition",
        "most_days",
        "move_source",
        "recount_hours",
        "strange_days",
        "time_column",
    ],
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in OBJECTS.items() for name in names]
)
def test_what_somebody_dropped_is_made_again(filled: Database, kind: str, name: str) -> None:
    query(filled.url, f"DROP {kind} mobileye_data.{name} CASCADE")
    assert apply(filled)
    assert not apply(filled)
    with sink_to(filled) as sink:
        load(sink, detections({**event(), "detection_time": "2022-06-07T00:00:00Z"}))
    views = " UNION ALL ".join(f"SELECT count(*) FROM mobileye_data.{view}" for view in OBJECTS["VIEW"])
    assert len(query(filled.url, views)) == len(OBJECTS["VIEW"])


@pytest.mark.parametrize("name", ["objects_detection_events", "vehicle_status_history"])
def test_a_table_that_was_renamed_is_reported_and_not_made_again(filled: Database, name: str) -> None:
    query(filled.url, f"ALTER TABLE mobileye_data.{name} RENAME TO lost")
    with pytest.raises(Misconfigured, match=f"{name}_other is no partition of {name}: was that renamed"):
        apply(filled)
    assert query(filled.url, f"SELECT to_regclass('mobileye_data.{name}')") == [(None,)]
    query(filled.url, f"ALTER TABLE mobileye_data.lost RENAME TO {name}")
    assert not apply(filled)


def test_one_that_fails_leaves_nothing(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "schema.sql"
    broken.write_text(SQL + "\nDO 'BEGIN RAISE SQLSTATE ''53100''; END'")
    monkeypatch.setattr(schema, "_SCHEMA_SQL", broken)
    with pytest.raises(Misconfigured):
        apply(empty_database)
    assert query(empty_database.url, "SELECT to_regnamespace('mobileye_data')") == [(None,)]


def test_of_several_daemons_that_apply_it_at_once_one_does(empty_database: Database) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with ThreadPoolExecutor(4) as pool, closing(empty_database.connect()) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(hashtext('mobileye_data.schema'))")
        applied = [pool.submit(apply, empty_database) for _ in range(4)]
        until(lambda: query(empty_database.url, waiting) == [(4,)])
        connection.rollback()
        connection.close()
        assert sorted(done.result() for done in applied) == [False, False, False, True]


def test_to_find_it_applied_takes_no_locks(database: Database) -> None:
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE mobileye_data.objects_detection_events IN ACCESS EXCLUSIVE MODE")
        assert not apply(database)


COMMENTS = re.findall(r"COMMENT ON (TABLE|COLUMN|VIEW) mobileye_data\.(\S+) IS\s+'((?:[^']|'')*)';", SQL)


@pytest.mark.parametrize(("kind", "name", "text"), COMMENTS, ids=[name for _, name, _ in COMMENTS])
def test_what_the_file_explains_is_explained_in_the_database(
    ten_days: Database, kind: str, name: str, text: str
) -> None:
    table, _, column = name.partition(".")
    found = query(
        ten_days.url,
        """
        SELECT description FROM pg_description d
        LEFT JOIN pg_attribute a ON attrelid = objoid AND attnum = objsubid AND objsubid > 0
        WHERE objoid = %s::regclass AND classoid = 'pg_class'::regclass AND coalesce(attname, '') = %s
        """,
        (f"mobileye_data.{table}", column),
    )
    assert found == [(text.replace("''", "'"),)]


def test_every_table_and_view_is_explained(database: Database) -> None:
    assert len(COMMENTS) >= 13
    unexplained = query(
        database.url,
        """
        SELECT relname FROM pg_class
        WHERE relnamespace = 'mobileye_data'::regnamespace AND relkind IN ('r', 'p', 'v')
          AND NOT relispartition AND obj_description(oid, 'pg_class') IS NULL
        """,
    )
    assert unexplained == []


def test_a_ledger_that_does_not_add_up_is_refused(database: Database) -> None:
    with pytest.raises(Exception, match="rows_add_up"):
        query(
            database.url,
            """
            INSERT INTO mobileye_data.ingested_files (file_id, name, last_name, state, started_at, rows_read)
            VALUES (1, 'x', 'x', 'loaded', now(), 1)
            """,
        )


# Questions -------------------------------------------------------------------------------------------


def hour(number: int) -> datetime:
    return datetime(2022, 6, 5, number, tzinfo=UTC)


def test_detections_by_hour(filled: Database) -> None:
    statement = (
        "SELECT hour, object_type, detections, objects FROM mobileye_data.detections_by_hour ORDER BY 1, 2"
    )
    assert query(filled.url, statement) == [
        (hour(21), "cars", 3, 3),
        (hour(21), "signs", 3, 6),
        (hour(23), "cars", 1, 10),
    ]


def test_vehicles_by_status(filled: Database) -> None:
    statement = (
        "SELECT status, vehicles, latest_report::text FROM mobileye_data.vehicles_by_status ORDER BY 1"
    )
    assert query(filled.url, statement) == [
        ("driving", 1, "2022-05-05 22:00:01.546+00"),
        ("parking", 2, "2022-05-05 22:00:02.546+00"),
    ]


def test_vehicle_timeline(filled: Database) -> None:
    statement = """
        SELECT what, value FROM mobileye_data.vehicle_timeline
        WHERE vehicle_id = %s AND at < '2022-06-05 21:00:01Z' ORDER BY at, what
        """
    found = query(filled.url, statement, (VEHICLE,))
    assert found == [("driving", None), ("parking", None), ("cars", 1), ("signs", 2)]


def test_open_rejects_are_those_that_no_replay_has_loaded(filled: Database) -> None:
    with sink_to(filled) as sink:
        load(sink, statuses(report(1, "accident"), {}))
    query(
        filled.url, "UPDATE mobileye_data.rejected_records SET resolved_at = now() WHERE reason = 'invalid'"
    )
    statement = "SELECT name, position, reason, original FROM mobileye_data.open_rejects"
    assert query(filled.url, statement) == [("x.json", 0, "conflict", report(1, "accident"))]


#: The question, and the index and the number of partitions that may answer it.
PLANS = {
    "one vehicle over a time range": (
        "SELECT * FROM objects_detection_events WHERE vehicle_id = 'x' AND detection_time BETWEEN"
        " '2022-06-03Z' AND '2022-06-03T12:00Z'",
        "objects_detection_events_20220603_pkey",
        ["objects_detection_events_20220603"],
    ),
    "all vehicles in a time range": (
        "SELECT * FROM objects_detection_events WHERE detection_time BETWEEN"
        " '2022-06-03T11:00Z' AND '2022-06-03T12:00Z'",
        "objects_detection_events_20220603_detection_time_idx",
        ["objects_detection_events_20220603"],
    ),
    "counts by type and hour": (
        "SELECT object_type, date_trunc('hour', detection_time), count(*) FROM objects_detection_events"
        " WHERE detection_time >= '2022-06-03T23:00Z' AND detection_time < '2022-06-05Z' GROUP BY 1, 2",
        "objects_detection_events_20220603_detection_time_idx",
        ["objects_detection_events_20220603", "objects_detection_events_20220604"],
    ),
    "a vehicle's timeline": (
        "SELECT * FROM vehicle_timeline WHERE vehicle_id = 'x'"
        " AND at BETWEEN '2022-06-03Z' AND '2022-06-03T12:00Z'",
        "vehicle_status_history_20220603_pkey",
        ["objects_detection_events_20220603", "vehicle_status_history_20220603"],
    ),
    "vehicles by status": (
        "SELECT * FROM vehicle_status WHERE status = 'accident'",
        "vehicle_status_by_status",
        ["vehicle_status"],
    ),
    "the latest of one vehicle": (
        "SELECT * FROM vehicle_status WHERE vehicle_id = 'x'",
        "vehicle_status_pkey",
        ["vehicle_status"],
    ),
    "what failed last": (
        "SELECT * FROM ingested_files WHERE state = 'failed' ORDER BY finished_at DESC LIMIT 5",
        "ingested_files_failed",
        ["ingested_files"],
    ),
    "what was loaded last": (
        "SELECT * FROM ingested_files ORDER BY finished_at DESC LIMIT 5",
        "ingested_files_finished",
        ["ingested_files"],
    ),
    "a file by its name": (
        "SELECT * FROM ingested_files WHERE name = 'x'",
        "ingested_files_name",
        ["ingested_files"],
    ),
    "open conflicts": (
        "SELECT * FROM rejected_records WHERE resolved_at IS NULL AND reason = 'conflict'",
        "rejected_records_open",
        ["rejected_records"],
    ),
}


@pytest.fixture(scope="module")
def ten_days(server: Server) -> Iterator[Database]:
    """Enough rows that a planner which knows them prefers an index."""
    with server.database() as database:
        apply(database)
        query(
            database.url,
            """
            SET search_path = mobileye_data;
            SELECT add_partition(parent, day::date)
            FROM unnest(ARRAY['objects_detection_events', 'vehicle_status_history']) parent,
                 generate_series('2022-06-01'::date, '2022-06-10', '1 day') day;
            INSERT INTO objects_detection_events
            SELECT 'car-' || i % 50, '2022-06-01Z'::timestamptz + i * interval '40s', 'cars', i, NULL, 1
            FROM generate_series(0, 21000) i;
            INSERT INTO objects_detection_events
            SELECT 'van-' || i % 50, '2022-06-03Z'::timestamptz + i * interval '0.864s', 'cars', i, NULL, 1
            FROM generate_series(0, 99999) i;
            INSERT INTO vehicle_status_history
            SELECT 'car-' || i % 50, '2022-06-01Z'::timestamptz + i * interval '40s', 'driving', NULL, 1
            FROM generate_series(0, 21000) i;
            INSERT INTO vehicle_status
            SELECT 'car-' || i, now(), CASE i % 100 WHEN 0 THEN 'accident' ELSE 'driving' END, NULL, 1
            FROM generate_series(1, 5000) i;
            INSERT INTO ingested_files (file_id, sha256, name, last_name, state, started_at)
            SELECT i, sha256(i::text::bytea), i, i, CASE i % 100 WHEN 0 THEN 'failed' ELSE 'loaded' END, now()
            FROM generate_series(1, 5000) i;
            INSERT INTO rejected_records (file_id, position, path, reason, detail, original)
            SELECT i, 0, '$', CASE i % 100 WHEN 0 THEN 'conflict' ELSE 'invalid' END, 'x', '{}'
            FROM generate_series(1, 5000) i;
            """,
        )
        query(database.url, "VACUUM ANALYZE")
        yield database


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def plan_of(database: Database, question: str) -> list[dict[str, Any]]:
    statement = f"SET search_path = mobileye_data; EXPLAIN (FORMAT JSON) {question}"
    ((plan,),) = query(database.url, statement)
    return list(nodes(plan[0]["Plan"]))


@pytest.mark.parametrize("question", PLANS)
def test_a_question_is_answered_by_its_index_from_its_days_alone(ten_days: Database, question: str) -> None:
    statement, index, tables = PLANS[question]
    found = plan_of(ten_days, statement)
    assert index in {node.get("Index Name") for node in found}
    assert sorted({node["Relation Name"] for node in found if "Relation Name" in node}) == tables
