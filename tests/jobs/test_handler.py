"""The handler itself, several at once or with a clock of its own, with a real bucket and a real database."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Event

import psycopg2
import pytest

from config import Settings
from db import schema
from db.connection import Database
from jobs.s3_lambda import Handler, NotLoaded
from tests.jobs.support import Bucket, in_transaction, returned, states, terminate_sessions, vehicles
from tests.s3_proxy import S3Proxy
from tests.seaweed import use_credentials
from tests.support import report, running_server, statuses, until


class Clock:
    """The platform's knowledge of an invocation that may take this long."""

    def __init__(self, seconds: float = 30.0) -> None:
        self._ends_at = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, round(1000 * (self._ends_at - time.monotonic())))


def status_of(vehicle: str) -> bytes:
    return statuses(report(vehicle=vehicle))


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    use_credentials(monkeypatch)


def handler(bucket: Bucket, url: str, endpoint: str = "") -> Handler:
    place, ours = bucket.settings["WATCH_FOLDER"], bucket.settings["S3_ENDPOINT_URL"]
    given = {"watch_folder": place, "database_url": url, "s3_endpoint_url": endpoint or ours}
    return Handler(lambda: Settings.model_validate(given))


@contextmanager
def locked_tables(url: str) -> Iterator[None]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE mobileye_data.vehicle_status_history IN ACCESS EXCLUSIVE MODE")
        yield


def test_b3_a_wait_for_the_database_ends_half_a_second_before_the_deadline(
    bucket: Bucket, database: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    name = bucket.put("vehicles_status_1.json", status_of("1"))
    handle, clock = handler(bucket, database.url), Clock(2.8)  # sooner than its lock_timeout
    with locked_tables(database.url):
        assert handle(bucket.queued(name), clock) == returned(name)
        assert clock.get_remaining_time_in_millis() >= 500
        assert "the time of the invocation is used up" in capfd.readouterr().err
        until(lambda: in_transaction(database.url) == 1, 1, "only the lock is left")
    assert handle(bucket.queued(name), Clock()) == returned()
    assert vehicles(database.url) == ["1"]


def test_b3_a_wait_for_the_bucket_ends_half_a_second_before_the_deadline(
    bucket: Bucket, database: Database, proxy: S3Proxy
) -> None:
    name = bucket.put("vehicles_status_1.json", status_of("1"))
    handle, clock, is_over = handler(bucket, database.url, proxy.url), Clock(3), Event()

    def stall(kind: str, path: str) -> None:
        if path.endswith(name):
            is_over.wait(20)

    proxy.fault = stall
    assert handle(bucket.queued(name), clock) == returned(name)
    assert clock.get_remaining_time_in_millis() >= 500 and in_transaction(database.url) == 0
    is_over.set()
    assert handle(bucket.queued(name), Clock()) == returned()
    assert vehicles(database.url) == ["1"]


def test_an_object_that_the_server_has_lost_is_given_back_alone(
    bucket: Bucket, database: Database, proxy: S3Proxy
) -> None:
    names = [bucket.put(f"vehicles_status_{n}.json", status_of(f"{n}")) for n in range(5)]
    proxy.fault = lambda kind, path: (503, "SlowDownRead") if path.endswith("_2.json") else None
    handle = handler(bucket, database.url, proxy.url)
    assert handle(bucket.queued(*names), Clock(60)) == returned(names[2])
    assert vehicles(database.url) == ["0", "1", "3", "4"]
    proxy.fault = lambda kind, path: None
    assert handle(bucket.queued(names[2]), Clock()) == returned()
    assert bucket.all_keys() == []


def test_nothing_is_begun_when_no_time_is_left(bucket: Bucket, database: Database) -> None:
    name = bucket.put("vehicles_status_1.json", status_of("1"))
    assert handler(bucket, database.url)(bucket.queued(name), Clock(1)) == returned(name)
    with pytest.raises(NotLoaded, match=r"the time of the invocation .* used up"):
        handler(bucket, database.url)(bucket.direct(name), Clock(1))
    assert states(database.url) == {} and bucket.all_keys() == [f"in/{name}"]


def test_b6_without_connections_for_all_the_others_give_their_objects_back(bucket: Bucket) -> None:
    names = [bucket.put(f"vehicles_status_{n}.json", status_of(f"{n}")) for n in range(10)]
    with running_server("max_connections=5", "superuser_reserved_connections=0") as server:
        with closing(Database(server.url()).connect()) as connection:
            schema.apply(connection)
        handlers = [handler(bucket, server.url()) for _ in names]
        with closing(psycopg2.connect(server.url())), ThreadPoolExecutor(10) as threads:
            calls = [
                threads.submit(handle, bucket.queued(name), Clock())
                for handle, name in zip(handlers, names, strict=True)
            ]
            answers = [call.result() for call in calls]
        left = [name for name, answer in zip(names, answers, strict=True) if answer == returned(name)]
        assert left and len(left) + answers.count(returned()) == 10
        assert bucket.all_keys() == [f"in/{name}" for name in left]
        terminate_sessions(server.url())
        assert handler(bucket, server.url())(bucket.queued(*names), Clock()) == returned()
        assert states(server.url()) == dict.fromkeys(names, "loaded")


def test_a_database_that_is_not_the_bucket_s_is_refused(bucket: Bucket, database: Database) -> None:
    name = bucket.put("vehicles_status_1.json", status_of("1"))
    bucket.put(".database", b'{"ledger": "another", "database": "the database x on y:1"}')
    with pytest.raises(NotLoaded, match=r"until now the files of .* went into the database x on y:1"):
        handler(bucket, database.url)(bucket.direct(name), Clock())
    assert states(database.url) == {}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"watch_folder": "/srv/incoming"}, "WATCH_FOLDER should be s3://bucket/prefix"),
        ({"watch_folder": "s3://b/in"}, "DATABASE_URL is not set"),
    ],
)
def test_settings_that_do_not_fit_a_function_are_named(
    bucket: Bucket, settings: dict[str, str], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    handle = Handler(lambda: Settings.model_validate(settings))
    assert handle(bucket.queued("a.json"), Clock()) == returned("a.json")
    assert reason in capfd.readouterr().err


def test_a_deleted_object_that_stays_is_given_back_until_it_is_gone(
    bucket: Bucket, database: Database, proxy: S3Proxy
) -> None:
    name = bucket.put("vehicles_status_1.json", status_of("1"))
    handle = handler(bucket, database.url, proxy.url)
    proxy.fault = lambda kind, path: (403, "AccessDenied") if kind == "DELETE" else None
    assert handle(bucket.queued(name), Clock()) == returned(name)
    assert vehicles(database.url) == ["1"]
    proxy.fault = lambda kind, path: None
    assert handle(bucket.queued(name), Clock()) == returned()
    assert vehicles(database.url) == ["1"] and bucket.all_keys() == []
