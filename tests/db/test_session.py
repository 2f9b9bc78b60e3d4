"""The session's settings behind a real pooler, which gives each transaction whatever session is free."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg2
import pytest

from db.connection import Database
from tests.pgbouncer import needs_pgbouncer, pooled
from tests.support import Daemon, Server, detections, event, query, report, statuses, until

#: Notes with which setting each file's transaction is committed.
WITNESS = """
    CREATE TABLE seen (synchronous_commit text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO public.seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER note AFTER INSERT ON mobileye_data.ingested_files
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note();
"""

#: What a daemon must not leave behind for the pool's other clients.
LEFT = ("search_path", "lock_timeout", "client_min_messages", "idle_in_transaction_session_timeout")


@pytest.fixture
def behind(server: Server, database: Database) -> Iterator[str]:
    """The database through PgBouncer in transaction mode, with defaults that lose rows."""
    query(database.url, WITNESS)
    name = database.url.rpartition("/")[2]
    server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    server.execute(f"ALTER DATABASE {name} SET statement_timeout = '5s'")
    with pooled(database.url, "transaction") as url:
        yield url


def test_a_connection_without_a_pooler_knows_it(server: Server) -> None:
    with closing(Database(server.url()).connect()) as connection:
        assert not connection.is_pooled


def test_a_dead_client_does_not_keep_its_locks_until_its_statement_is_over(database: Database) -> None:
    query(database.url, "CREATE TABLE held (n integer PRIMARY KEY)")
    script = (
        "import sys; from db.connection import Database; cursor = Database(sys.argv[1]).connect().cursor();"
        "cursor.execute('INSERT INTO public.held VALUES (1)'); cursor.execute('SELECT pg_sleep(300)')"
    )
    busy = (
        "SELECT pid FROM pg_stat_activity "
        "WHERE query = 'SELECT pg_sleep(300)' AND datname = current_database()"
    )
    with subprocess.Popen([sys.executable, "-c", script, database.url]) as client:
        until(lambda: query(database.url, busy), 20)
        client.kill()
    until(lambda: not query(database.url, busy), 20)
    assert query(database.url, "INSERT INTO held VALUES (1) RETURNING n") == [(1,)]


@needs_pgbouncer
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_pooler_is_noticed(database: Database, mode: str) -> None:
    with pooled(database.url, mode) as url, closing(Database(url).connect()) as connection:
        assert connection.is_pooled


@needs_pgbouncer
def test_behind_a_pooler_every_commit_is_durable_and_nothing_leaks(
    tmp_path: Path, database: Database, behind: str
) -> None:
    before = _left(database.url)
    daemon = Daemon(tmp_path, behind, WORKERS=2)
    for second in range(30):
        daemon.drop(f"objects_detection_{second}.json", detections(event(second)))
        daemon.drop(f"vehicles_status_{second}.json", statuses(report(second), report(second, "parking")))
    daemon.drop("large.json", detections(*(event(n % 3600, vehicle=f"v{n}") for n in range(60_000))))
    daemon.drop("bad.json", b"[]")
    daemon.start("--once")
    assert daemon.wait() == 1  # for bad.json
    assert daemon.log().count(" a pooler is in between") == 1
    assert daemon.rows("SELECT count(*) FROM mobileye_data.ingested_files") == [(62,)]
    assert daemon.rows("SELECT DISTINCT synchronous_commit FROM seen") == [("on",)]
    # The same rows once more: found by way of temporary tables, which must not outlive their transaction.
    daemon.drop("again.json", detections(*(event(n % 3600, vehicle=f"v{n}") for n in range(40_000))))
    daemon.start("--once")
    assert daemon.wait() == 0
    assert query(behind, "SELECT relname FROM pg_class WHERE relpersistence = 't'") == []
    assert _left(behind) == before
    assert "(1 row)" in daemon.command("sql", "select status from vehicle_status").stdout


def _left(url: str) -> list[set[str]]:
    """The settings that other clients find in the sessions of the pool, as many as may be free."""
    connections = []
    found: list[set[str]] = [set() for _ in LEFT]
    with suppress(psycopg2.Error):
        for _ in range(8):
            connections.append(psycopg2.connect(url))
            with connections[-1].cursor() as cursor:
                cursor.execute("SELECT " + ", ".join(f"current_setting('{name}')" for name in LEFT))
                for values, value in zip(found, cursor.fetchall()[0], strict=True):
                    values.add(value)
    for connection in connections:
        connection.close()
    return found
