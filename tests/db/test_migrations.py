"""Upgrades: tables that version 0.1.0 made and filled, under the program of today."""

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from db import schema
from db.connection import Database
from processing.errors import Misconfigured
from tests.db.loading import counts, load, sink_to
from tests.support import ROOT, Daemon, Server, detections, event, query, report, statuses

#: Dumped by pg_dump --inserts after 0.1.0 had loaded, rejected, replayed and failed files.
OLD = (ROOT / "tests" / "db" / "version_0_1_0.sql").read_text()

MIGRATIONS = sorted((ROOT / "db" / "migrations").glob("*.sql"))

#: All that makes up the schema, partitions of days aside: each thing by its name and its text.
CATALOG = """
    SELECT 'column ' || relname || '.' || attname,
           format_type(atttypid, atttypmod) || ' ' || attnotnull || coalesce(pg_get_expr(adbin, adrelid), '')
           || ' ' || attcollation::regcollation
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relnamespace = 'mobileye_data'::regnamespace AND relkind IN ('r', 'p', 'v') AND attnum > 0
      AND NOT attisdropped AND relname !~ '_[0-9]{8}$'
    UNION ALL
    SELECT 'constraint ' || relname || '.' || conname, pg_get_constraintdef(pg_constraint.oid)
    FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
    WHERE connamespace = 'mobileye_data'::regnamespace AND relname !~ '_[0-9]{8}$'
    UNION ALL
    SELECT 'index ' || indexname, indexdef FROM pg_indexes
    WHERE schemaname = 'mobileye_data' AND tablename !~ '_[0-9]{8}$'
    UNION ALL
    SELECT 'function ' || oid::regprocedure, pg_get_functiondef(oid) || coalesce(proacl::text, '')
    FROM pg_proc WHERE pronamespace = 'mobileye_data'::regnamespace
    UNION ALL
    SELECT 'view ' || viewname, definition FROM pg_views WHERE schemaname = 'mobileye_data'
    UNION ALL
    SELECT 'trigger ' || tgname, pg_get_triggerdef(pg_trigger.oid)
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE relnamespace = 'mobileye_data'::regnamespace AND NOT tgisinternal AND relname !~ '_[0-9]{8}$'
    """


def apply(database: Database) -> bool:
    with closing(database.connect()) as connection:
        return schema.apply(connection)


@pytest.fixture
def old(empty_database: Database) -> Database:
    query(empty_database.url, OLD)
    return empty_database


@pytest.fixture
def upgraded(old: Database, tmp_path: Path) -> Daemon:
    """A daemon in the folder of 0.1.0, with the file that failed."""
    daemon = Daemon(tmp_path, old.url)
    daemon.failed.mkdir(parents=True)
    (daemon.failed / "bad.json").write_bytes(b"[]")
    return daemon


def test_what_the_first_version_loaded_adds_up_and_more_is_loaded(upgraded: Daemon, old: Database) -> None:
    assert upgraded.command("verify").stdout == "ledger, tables and folders add up\n"
    before = counts(old)
    assert min(before.values()) > 0
    for number in range(2):  # of the days that are there, and of others; some rows are there already
        upgraded.drop(f"objects_detection_{number}.json", detections(event(number), event(100 + number)))
        upgraded.drop(f"vehicles_status_{number}.json", statuses(report(number), report(100 + number, "x")))
    assert upgraded.start("--once", wait=False).wait() == 0, upgraded.log()
    assert upgraded.command("replay", "rejected").stdout.endswith(" still rejected\n")
    assert upgraded.command("verify").stdout == "ledger, tables and folders add up\n"
    after = counts(old)
    assert all(after[table] >= before[table] for table in before) and after != before


def test_files_that_the_first_version_loaded_are_known(upgraded: Daemon, old: Database) -> None:
    upgraded.drop("objects_detection_1.json", detections(event(1), event(2)))
    assert upgraded.start("--once", wait=False).wait() == 0
    assert " duplicate file=objects_detection_1.json" in upgraded.log()


def test_an_upgraded_database_has_what_a_new_one_has(old: Database, server: Server) -> None:
    assert apply(old) and not apply(old)
    upgraded: dict[str, Any] = dict(query(old.url, CATALOG))
    with server.database() as new_one:
        assert apply(new_one)
        new: dict[str, Any] = dict(query(new_one.url, CATALOG))
    assert len(new) > 100
    assert upgraded == new


def test_migrations_do_no_harm_to_tables_that_have_them(database: Database, tmp_path: Path) -> None:
    """A dump without comments has lost its number."""
    with sink_to(database) as sink:
        load(sink, detections(event(1)), statuses(report(1), {}))
    before = counts(database), dict(query(database.url, CATALOG))
    query(database.url, "COMMENT ON SCHEMA mobileye_data IS NULL")
    assert apply(database)
    assert (counts(database), dict(query(database.url, CATALOG))) == before
    (tmp_path / "incoming").mkdir()
    assert Daemon(tmp_path, database.url).command("verify").returncode == 0


def test_each_migration_has_a_number_of_its_own_up_to_that_of_the_schema() -> None:
    numbers = [int(path.stem.partition("_")[0]) for path in MIGRATIONS]
    assert len(set(numbers)) == len(numbers)
    assert all(re.fullmatch(r"\d{4}_\w+\.sql", path.name) for path in MIGRATIONS)
    assert max(numbers) <= schema._number((ROOT / "schema.sql").read_text())


# The mechanism ----------------------------------------------------------------------------------------


@pytest.fixture
def migrations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder of migrations, for a schema of number 3."""
    sql = tmp_path / "schema.sql"
    sql.write_text(
        "-- schema 3\n"
        "CREATE SCHEMA IF NOT EXISTS mobileye_data;\n"
        "CREATE TABLE IF NOT EXISTS mobileye_data.steps (step text, place serial);\n"
    )
    folder = tmp_path / "migrations"
    folder.mkdir()
    monkeypatch.setattr(schema, "_SCHEMA_SQL", sql)
    monkeypatch.setattr(schema, "_MIGRATIONS", folder)
    return folder


def note(folder: Path, *numbers: int) -> None:
    for number in numbers:
        text = f"INSERT INTO mobileye_data.steps VALUES ('{number} 100%');"
        (folder / f"{number:04}_note.sql").write_text(text)


def steps(database: Database) -> list[str]:
    return [step for (step,) in query(database.url, "SELECT step FROM mobileye_data.steps ORDER BY place")]


def be_of(database: Database, number: int) -> None:
    query(
        database.url, f"COMMENT ON SCHEMA mobileye_data IS 'Mobileye Data Processing System, schema {number}'"
    )


def test_a_new_database_gets_no_migration(empty_database: Database, migrations: Path) -> None:
    note(migrations, 1, 2, 3)
    assert apply(empty_database)
    assert steps(empty_database) == []


def test_an_older_one_gets_those_that_it_lacks_in_order(empty_database: Database, migrations: Path) -> None:
    assert apply(empty_database)
    note(migrations, 3, 1, 2)
    be_of(empty_database, 1)
    assert apply(empty_database)
    assert steps(empty_database) == ["2 100%", "3 100%"]
    assert not apply(empty_database)
    assert steps(empty_database) == ["2 100%", "3 100%"]


def test_one_that_fails_leaves_the_others_undone(empty_database: Database, migrations: Path) -> None:
    assert apply(empty_database)
    note(migrations, 2)
    (migrations / "0003_wrong.sql").write_text("SELECT nothing;")
    be_of(empty_database, 1)
    with pytest.raises(Misconfigured, match="nothing"):
        apply(empty_database)
    assert steps(empty_database) == []
    note(migrations, 3)
    (migrations / "0003_wrong.sql").unlink()
    assert apply(empty_database)
    assert steps(empty_database) == ["2 100%", "3 100%"]
