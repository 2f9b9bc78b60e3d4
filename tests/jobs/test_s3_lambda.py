"""The function of the zip under AWS's own runtime and emulator, with a real bucket and a real database."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from db.connection import Database
from tests.jobs.emulator import Functions
from tests.jobs.support import Bucket, message, returned, states, vehicles
from tests.support import query, report, running_server, statuses

BAD = b'{"vehicle_status": [}'

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


def test_b5_a_connection_that_died_between_two_calls_is_replaced(
    functions: Functions, bucket: Bucket, database: Database
) -> None:
    function = functions.start()
    for turn in ("first", "warm", "terminated"):
        if turn == "terminated":
            query(
                database.url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
        name = bucket.put(f"vehicles_status_{turn}.json", status_of(turn))
        before = _sessions(database)
        assert function.invoke(bucket.queued(name)) == returned(), function.log()
        if turn == "warm":
            assert _sessions(database) == before != []  # the connection is kept
    assert vehicles(database.url) == ["first", "terminated", "warm"]


def _sessions(database: Database) -> list[int]:
    statement = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return [pid for (pid,) in query(database.url, statement)]


def test_b5_a_server_that_restarted_between_two_calls_is_used_again(
    functions: Functions, bucket: Bucket
) -> None:
    from db import schema

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
        {"source": "aws.s3", "detail-type": "Object Created", "detail": {"object": {"key": "in/a.json"}}},
        {"hello": "world"},
        bucket.direct("vehicles_status_1.json", event="ObjectRemoved:Delete"),
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
