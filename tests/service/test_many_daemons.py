"""Several daemons on one database: as many as are started, whoever is first, whatever they meet."""

import os
import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psycopg2
import pytest

from db.claims import SLOTS
from db.connection import Database
from tests.chaos.link import Link, plugged
from tests.seaweed import Seaweed
from tests.service.test_bucket import BucketDaemon, status_of
from tests.support import (
    ROOT,
    Daemon,
    Server,
    detections,
    event,
    frozen,
    query,
    report,
    running_server,
    statuses,
    until,
)
from tests.test_imports import MODULES

_DAEMONS = 4

#: What a daemon says of something that went wrong, whatever became of it.
_TROUBLE = re.compile(r" (?:waiting|suspected|failed|worker died|Traceback|waiting for the database)\b(?!=)")


_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@contextmanager
def running(folder: Path, url: str, count: int = _DAEMONS, **settings: object) -> Iterator[list[Daemon]]:
    """Starts daemons on one folder, all at once; stops them at the end."""
    shared = folder / "incoming"
    shared.mkdir()
    settings = {"WATCH_FOLDER": shared, "WORKERS": 1, **settings}
    with ExitStack() as stack:
        daemons = [Daemon(folder / f"daemon{n}", url, **settings) for n in range(count)]
        for daemon in daemons:
            daemon.incoming = shared
            daemon.start(wait=False)
            stack.callback(ended, daemon)
        for daemon in daemons:
            until(lambda: " watching " in daemon.log(), 40, "it watches")  # noqa: B023
        yield daemons


def ended(daemon: Daemon) -> None:
    if daemon.process is not None:
        daemon.stop()


def drop_statuses(daemon: Daemon, numbers: Sequence[int]) -> None:
    for n in numbers:
        daemon.drop(f"vehicles_status_{n}.json", statuses(report(vehicle=f"{n:032}")))


def vehicles(url: str) -> list[int]:
    rows = query(url, "SELECT vehicle_id FROM mobileye_data.vehicle_status_history ORDER BY 1")
    return [int(vehicle) for (vehicle,) in rows]


def test_i2_four_daemons_that_start_at_once_make_the_tables_once(
    tmp_path: Path, empty_database: Database, server: Server
) -> None:
    name = empty_database.url.rpartition("/")[2]
    server.execute(f"ALTER DATABASE {name} SET log_statement = 'ddl'")
    before = len((server.folder / "log").read_bytes())
    with running(tmp_path, empty_database.url) as daemons:
        drop_statuses(daemons[0], range(60))
        daemons[0].until_empty()
        assert [daemon.stop() for daemon in daemons] == [0] * _DAEMONS
        assert not [line for daemon in daemons for line in daemon.log().splitlines() if " error " in line]
    assert vehicles(empty_database.url) == list(range(60))
    log = (server.folder / "log").read_bytes()[before:]
    assert log.count(b"CREATE TABLE IF NOT EXISTS mobileye_data.ingested_files") == 1


def test_i1_four_daemons_on_one_folder_load_each_file_once(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database.url) as daemons:
        drop_statuses(daemons[0], range(600))
        daemons[0].until_empty()
        for daemon in daemons:
            assert daemon.stop() == 0
        loaded = [int(re.findall(r" stopped loaded=(\d+)", daemon.log())[0]) for daemon in daemons]
    assert vehicles(database.url) == list(range(600))
    assert sum(loaded) == 600
    assert query(database.url, "SELECT sum(deliveries) FROM mobileye_data.ingested_files") == [(600,)]


def test_i3_hot_vehicles_cost_four_daemons_no_file_and_no_word(
    tmp_path: Path, database: Database, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(3)
    hot = [f"{n:032}" for n in range(5)]
    with running(tmp_path, database.url) as daemons:
        for n in range(300):
            order = chance.sample(hot, len(hot))
            if n % 2:
                content = statuses(*(report(n, "driving", vehicle) for vehicle in order))
                daemons[0].drop(f"vehicles_status_{n}.json", content)
            else:
                content = detections(*(event(n, ("cars", n % 9), vehicle=vehicle) for vehicle in order))
                daemons[0].drop(f"objects_detection_{n}.json", content)
        daemons[0].until_empty(60)
        for daemon in daemons:
            assert daemon.stop() == 0
            assert not _TROUBLE.findall(daemon.log()), daemon.log()
    ((deadlocks,),) = query(database.url, _DEADLOCKS)
    record_property("deadlocks", deadlocks)
    counted = "SELECT count(*), count(DISTINCT (vehicle_id, {0})) FROM mobileye_data.{1}"
    for time, table in (
        ("report_time", "vehicle_status_history"),
        ("detection_time", "objects_detection_events"),
    ):
        assert query(database.url, counted.format(time, table)) == [(750, 750)]
    latest = query(
        database.url, "SELECT DISTINCT extract(minute FROM report_time) FROM mobileye_data.vehicle_status"
    )
    assert latest == [(4,)]  # report 299
    hourly = query(database.url, "SELECT sum(detections) FROM mobileye_data.detections_hourly")
    assert hourly == [(750,)]


def test_i4_while_two_of_four_are_frozen_the_others_load_what_they_do_not_hold(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database.url) as daemons:
        drop_statuses(daemons[0], range(100))
        daemons[0].until_empty()
        with frozen(daemons[0].pid, daemons[1].pid):
            drop_statuses(daemons[0], range(100, 400))
            daemons[0].until_empty()
        drop_statuses(daemons[0], range(400, 500))
        with frozen(daemons[2].pid, daemons[3].pid):  # whatever they are at
            drop_statuses(daemons[0], range(500, 800))
            until(lambda: len(daemons[0].left()) <= 100, 40)
        daemons[0].until_empty()
        assert [daemon.stop() for daemon in daemons] == [0] * _DAEMONS
    assert vehicles(database.url) == list(range(800))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_i4_the_objects_of_two_frozen_daemons_are_taken_over_within_40_seconds(
    tmp_path: Path, database: Database, seaweed: Seaweed
) -> None:
    first = BucketDaemon(tmp_path / "0", database.url, seaweed, WORKERS=1)
    shared = {"WATCH_FOLDER": f"s3://{first.bucket}/in", "WORKERS": 1}
    daemons = [first, *(BucketDaemon(tmp_path / str(n), database.url, seaweed, **shared) for n in (1, 2, 3))]
    with ExitStack() as stack:
        for daemon in daemons:
            daemon.start()
            stack.callback(ended, daemon)
        until(lambda: has_slots(database.url, _DAEMONS), 60)
        for n in range(300):
            first.put(f"vehicles_status_{n}.json", status_of(f"{n:032}"))
            if n == 150:
                for daemon in daemons[2:]:
                    stack.enter_context(frozen(daemon.pid))
        first.until_empty(40)
        stack.pop_all().close()
    assert vehicles(database.url) == list(range(300))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ip") is None or os.geteuid() != 0, reason="needs root, and iproute2")
def test_i4_the_files_of_two_daemons_whose_link_is_cut_are_taken_over_within_40_seconds(
    tmp_path: Path,
) -> None:
    with running_server("fsync=off") as server, plugged(server) as link, server.database() as database:
        with running(tmp_path, database.url, 2) as near, running_behind(link, tmp_path, database.url) as far:
            for start in range(0, 1000, 100):
                drop_statuses(near[0], range(start, start + 100))
            with link.swallowing():
                drop_statuses(near[0], range(1000, 1200))
                near[0].until_empty(40)
            assert [daemon.stop() for daemon in far] == [0, 0]
        assert vehicles(database.url) == list(range(1200))


@contextmanager
def running_behind(link: Link, folder: Path, url: str) -> Iterator[list[Daemon]]:
    """Starts two daemons at the far end of the link, on the same folder."""
    with ExitStack() as stack:
        far = [Daemon(folder / f"far{n}", url.replace("127.0.0.1", link.server)) for n in range(2)]
        for daemon in far:
            daemon.prefix = link.prefix
            daemon.incoming = folder / "incoming"
            daemon.set(WATCH_FOLDER=daemon.incoming, WORKERS=1)
            daemon.start()
            stack.callback(ended, daemon)
        yield far


def has_slots(url: str, count: int) -> bool:
    """Returns whether so many sessions have a share of the bucket."""
    statement = "SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND objid < %s"
    return query(url, statement, [SLOTS]) == [(count,)]


def test_i5_an_older_version_goes_on_beside_a_newer_one_and_does_not_start_again(
    tmp_path: Path, database: Database
) -> None:
    newer = newer_version(tmp_path / "newer")
    with running(tmp_path, database.url, 1) as (old,):
        new = Daemon(tmp_path / "new", database.url, WATCH_FOLDER=old.incoming, WORKERS=1)
        new.program = newer / "main.py"
        new.incoming = old.incoming
        new.start()
        try:
            drop_statuses(old, range(100))
            old.until_empty()
            assert old.stop() == 0
            assert old.start(wait=False).wait() == 2
        finally:
            new.stop()
        assert "a newer version of this program made" in old.log() and "Traceback" not in old.log()
    assert vehicles(database.url) == list(range(100))


def newer_version(folder: Path) -> Path:
    """A copy of the program whose tables have a higher number and one column more."""
    for path in (*MODULES.values(), ROOT / "schema.sql", *(ROOT / "db").rglob("*.sql")):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    schema = folder / "schema.sql"
    number = int(re.findall(r"\bschema (\d+)\b", schema.read_text())[0])
    schema.write_text(re.sub(r"\bschema \d+\b", f"schema {number + 1}", schema.read_text(), count=1))
    migration = "ALTER TABLE mobileye_data.ingested_files ADD COLUMN of_the_newer text;\n"
    (folder / "db" / "migrations" / f"{number + 1:04}_newer.sql").write_text(migration)
    return folder


def test_i6_daemons_for_whom_there_is_no_connection_wait_and_say_so(tmp_path: Path) -> None:
    with running_server("fsync=off", "max_connections=5", "superuser_reserved_connections=3") as server:
        server.execute("CREATE ROLE loader LOGIN PASSWORD 'secret'")
        server.execute("CREATE DATABASE few OWNER loader")
        url = server.url("few", "loader", "secret")
        with running(tmp_path, url) as daemons:
            with ExitStack() as others:
                until(lambda: takes_one_more(others, url) is False, 20, "no connection is left")
                drop_statuses(daemons[0], range(60))
                until(lambda: all(" waiting for the database " in daemon.log() for daemon in daemons), 40)
            daemons[0].until_empty(60)
            for daemon in daemons:
                assert daemon.stop() == 0 and "Traceback" not in daemon.log()
        assert vehicles(server.url("few")) == list(range(60))


def takes_one_more(stack: ExitStack, url: str) -> bool:
    """Opens one more connection until the end of the stack; returns False if there is none."""
    try:
        stack.enter_context(closing(psycopg2.connect(url)))
    except psycopg2.OperationalError:
        return False
    return True
