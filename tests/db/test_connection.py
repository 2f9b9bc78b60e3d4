"""Connections to a real server: translation of its errors, and session settings that always hold."""

import pickle
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn, parse_dsn
from psycopg2.sql import SQL

from db.connection import Cancelled, Database, KeyExists, RowRefused, translate_errors
from processing.errors import (
    DatabaseUnavailable,
    LockTimeout,
    Misconfigured,
    Setback,
    TransactionFailed,
    TryAgain,
)
from tests.support import Server, free_port, query, until


@pytest.fixture
def connection(empty_database: Database) -> Iterator[Connection]:
    with closing(empty_database.connect(autocommit=True)) as connection:
        yield connection


def execute(connection: Connection, statement: str) -> None:
    with translate_errors(), connection.cursor() as cursor:
        cursor.execute(statement)


def shown(connection: Connection, setting: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW {setting}")
        return str(cursor.fetchall()[0][0])


@contextmanager
def role(server: Server, *options: str) -> Iterator[str]:
    name = f"role_{secrets.token_hex(4)}"
    server.execute(f"CREATE ROLE {name} PASSWORD 'hush' {' '.join(options)}")
    try:
        yield name
    finally:
        server.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def url_of(server: Server, database: Database, user: str, password: str = "hush") -> str:
    return server.url(parse_dsn(database.url)["dbname"], user, password)


#: One real statement for each SQLSTATE that a load may meet.
ERRORS = {
    "22P02": ("SELECT 'x'::integer", RowRefused),
    "22003": ("SELECT 2147483648::integer", RowRefused),
    "22008": ("SELECT '2022-02-30'::timestamptz", RowRefused),
    "22009": ("SELECT '2022-02-03 00:00+23:00'::timestamptz", RowRefused),
    "22P05": (r"""SELECT '"\u0000"'::jsonb""", RowRefused),
    "22021": (r"SELECT convert_from('\xff', 'UTF8')", RowRefused),
    "23505": ("CREATE TEMP TABLE t (i integer UNIQUE); INSERT INTO t VALUES (1), (1)", KeyExists),
    "23514": ("CREATE TEMP TABLE t (i integer CHECK (i > 1)); INSERT INTO t VALUES (1)", RowRefused),
    "23502": ("CREATE TEMP TABLE t (i integer NOT NULL); INSERT INTO t VALUES (NULL)", RowRefused),
    "54000": (
        "CREATE TEMP TABLE t (i text UNIQUE);"
        "INSERT INTO t SELECT string_agg(sha512(i::text::bytea)::text, '') FROM generate_series(1, 200) i",
        RowRefused,
    ),
    "3F000": ("CREATE TABLE nowhere.t ()", Misconfigured),
    "42P01": ("SELECT FROM nothing", Misconfigured),
    "42703": ("SELECT nothing FROM pg_class", Misconfigured),
    "42501": ("SET ROLE pg_monitor; CREATE TABLE pg_catalog.t ()", Misconfigured),
    "25006": ("SET transaction_read_only = on; CREATE TABLE t ()", DatabaseUnavailable),
    "57014": ("SET statement_timeout = 1; SELECT pg_sleep(20)", Cancelled),
    "none": ("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(20)", Setback),
    "58P01": ("SELECT pg_read_file('/there/is/none')", DatabaseUnavailable),
    "55000": ("CREATE SEQUENCE s; SELECT currval('s')", TransactionFailed),
    "0A000": (
        "CREATE TEMP TABLE t (i integer UNIQUE); CREATE RULE never AS ON UPDATE TO t DO INSTEAD NOTHING;"
        "INSERT INTO t VALUES (1) ON CONFLICT (i) DO NOTHING",
        RowRefused,
    ),
    "P0001": ("DO 'BEGIN RAISE ''no''; END'", RowRefused),
    "P0004": ("DO 'BEGIN ASSERT false; END'", RowRefused),
    "40001": ("DO 'BEGIN RAISE SQLSTATE ''40001''; END'", RowRefused),
    "53100": ("DO 'BEGIN RAISE SQLSTATE ''53100''; END'", RowRefused),
    "58030": ("DO 'BEGIN RAISE SQLSTATE ''58030''; END'", RowRefused),
    "42883": ("SELECT nothing()", Misconfigured),
}


@pytest.mark.parametrize("code", ERRORS)
def test_errors_are_translated_by_their_sqlstate(connection: Connection, code: str) -> None:
    statement, expected = ERRORS[code]
    with pytest.raises(Exception) as raised:
        execute(connection, statement)
    assert type(raised.value) is expected
    assert (getattr(raised.value.__context__, "pgcode", None) or "none") == code


def test_an_error_that_crosses_processes_stays_what_it_is() -> None:
    error = pickle.loads(pickle.dumps(KeyExists("23505", "there already")))
    assert (type(error), error.sqlstate, str(error)) == (KeyExists, "23505", "there already")


def test_a_message_is_one_line_without_the_row(connection: Connection) -> None:
    with pytest.raises(RowRefused) as raised:
        execute(connection, "CREATE TEMP TABLE t (i text CHECK (i > 'z')); INSERT INTO t VALUES ('a secret')")
    assert str(raised.value) == 'new row for relation "t" violates check constraint "t_i_check"'


def test_a_lock_timeout_is_infrastructure(empty_database: Database) -> None:
    with closing(empty_database.connect()) as holder, closing(empty_database.connect()) as waiter:
        execute(holder, "SELECT pg_advisory_xact_lock(1)")
        with pytest.raises(LockTimeout, match="lock timeout"):
            execute(waiter, "SET lock_timeout = 10; SELECT pg_advisory_xact_lock(1)")


def test_the_loser_of_a_deadlock_gets_try_again(empty_database: Database) -> None:
    with (
        closing(empty_database.connect()) as first,
        closing(empty_database.connect()) as second,
        ThreadPoolExecutor() as threads,
    ):
        for connection, number in ((first, 1), (second, 2)):
            execute(connection, f"SET deadlock_timeout = '50ms'; SELECT pg_advisory_xact_lock({number})")
        crossing = [
            threads.submit(execute, connection, f"SELECT pg_advisory_xact_lock({number}); ROLLBACK")
            for connection, number in ((first, 2), (second, 1))
        ]
        assert sorted(str(type(future.exception())) for future in crossing) == sorted(
            [str(TryAgain), str(type(None))]
        )


def test_a_connection_that_was_terminated_while_idle_is_infrastructure(
    empty_database: Database, connection: Connection
) -> None:
    backend = connection.info.backend_pid
    query(empty_database.url, "SELECT pg_terminate_backend(%s)", (backend,))
    alive = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
    until(lambda: not query(empty_database.url, alive, (backend,)))
    with pytest.raises(DatabaseUnavailable):
        execute(connection, "SELECT 1")


# Refused connections ---------------------------------------------------------------------------------


def test_a_wrong_password_is_a_matter_of_settings(server: Server) -> None:
    with pytest.raises(Misconfigured, match="password authentication failed") as raised:
        Database(server.url(password="wrong-secret")).connect()
    assert "wrong-secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("user", "name", "complaint"),
    [
        ("tester", "nowhere", 'database "nowhere" does not exist'),
        ("nobody", "postgres", "password authentication failed"),
        (None, "postgres", "is not permitted to log in"),
    ],
)
def test_a_name_that_the_server_does_not_know_is_a_matter_of_settings(
    server: Server, user: str | None, name: str, complaint: str
) -> None:
    with role(server, "NOLOGIN") as unwelcome, pytest.raises(Misconfigured, match=complaint):
        Database(server.url(name, user or unwelcome, None if user else "hush")).connect()


def test_no_right_to_connect_is_a_matter_of_settings(server: Server, empty_database: Database) -> None:
    name = parse_dsn(empty_database.url)["dbname"]
    server.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    with role(server, "LOGIN") as user, pytest.raises(Misconfigured, match="permission denied for database"):
        Database(url_of(server, empty_database, user)).connect()


def test_too_many_connections_are_infrastructure(server: Server, empty_database: Database) -> None:
    full = pytest.raises(DatabaseUnavailable, match="too many connections")
    with role(server, "LOGIN", "CONNECTION LIMIT 0") as user, full:
        Database(url_of(server, empty_database, user)).connect()


def test_a_server_that_takes_no_writes_is_infrastructure(server: Server, empty_database: Database) -> None:
    server.execute(
        f"ALTER DATABASE {parse_dsn(empty_database.url)['dbname']} SET default_transaction_read_only = on"
    )
    with pytest.raises(DatabaseUnavailable, match="read-only"):
        empty_database.connect()


def test_a_server_that_is_not_there_is_infrastructure() -> None:
    with pytest.raises(DatabaseUnavailable, match="Connection refused"):
        Database(f"postgresql://u:hush@127.0.0.1:{free_port()}/x").connect()


def test_a_refusal_counts_whichever_address_it_comes_from(server: Server) -> None:
    """With localhost, for example, ::1 is tried before 127.0.0.1, and nothing may listen there."""
    where = {"host": "127.0.0.1,127.0.0.1", "port": f"{free_port()},{server.port}"}
    url = make_dsn("", dbname="postgres", user="tester", password="wrong-secret", **where)
    with pytest.raises(Misconfigured, match="password authentication failed"):
        Database(url).connect()


@pytest.mark.parametrize(
    "url",
    [
        "hush",
        "host=h password='hush",
        "host=h password=x hush",
        "host=h hush=1",
        "mysql://u:hush@h/x",
        "postgresql://u:hush%zz@h/x",
        "postgresql://u:x/hush@127.0.0.1:1/x",
        "postgresql://u:hush/x@127.0.0.1:1/x",
        "postgresql://u:12/hush@127.0.0.1:1/x",
        "postgresql://u:x@hush@127.0.0.1:1/x",
        "postgres://u:hush@[::1/x",
    ],
)
def test_a_malformed_connection_string_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        Database(url).connect()
    assert "hush" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hush@127.0.0.1:port/x",
        "postgresql://u:hush@127.0.0.1/x?sslmode=maybe",
        "postgresql://u:hush@127.0.0.1/x?connect_timeout=soon",
        "postgresql://u:hush@127.0.0.1/x?hurry=1",
    ],
)
def test_a_wrong_option_is_a_matter_of_settings(url: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        Database(url).connect()
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("password", ["p@ss/w:rd?#[%", "a b'c\\"])
def test_any_password_works_if_it_is_encoded(server: Server, password: str) -> None:
    with role(server, "LOGIN") as user:
        with closing(psycopg2.connect(server.url())) as admin, admin, admin.cursor() as cursor:
            cursor.execute(f"ALTER ROLE {user} PASSWORD %s", (password,))
        encoded = "".join(f"%{byte:02X}" for byte in password.encode())
        Database(server.url("postgres", user, encoded)).connect().close()
        parts = {**parse_dsn(server.url()), "user": user, "password": password}
        Database(make_dsn("", **parts)).connect().close()


# The session -----------------------------------------------------------------------------------------

HOSTILE = {
    "timezone": ("'America/New_York'", "UTC"),
    "synchronous_commit": ("off", "on"),
    "datestyle": ("'SQL', 'DMY'", "ISO, YMD"),
    "default_transaction_isolation": ("'serializable'", "read committed"),
    "standard_conforming_strings": ("off", "on"),
    "search_path": ("pg_catalog", "mobileye_data, public"),
    "lock_timeout": ("1", "1min"),
    "idle_in_transaction_session_timeout": ("100", "10min"),
    "tcp_user_timeout": ("0", "10000"),
    "tcp_keepalives_idle": ("0", "4"),
    "tcp_keepalives_interval": ("0", "2"),
    "tcp_keepalives_count": ("0", "3"),
    "client_min_messages": ("debug5", "error"),
    "statement_timeout": ("100", "0"),
    "idle_session_timeout": ("100", "0"),
    "transaction_timeout": ("100", "0"),
}

#: The first version of the server that has the setting.
VERSIONS = {"idle_session_timeout": 140_000, "transaction_timeout": 170_000}

#: What counts only between transactions: there a pooler has deadlines of its own.
BETWEEN = {name for name in HOSTILE if name.startswith("tcp_")} | {
    "default_transaction_isolation",
    "idle_session_timeout",
}


@contextmanager
def hostile(server: Server, database: Database) -> Iterator[tuple[Database, dict[str, str]]]:
    """The database of a role whose settings are all against us, and ours."""
    ((version,),) = server.execute("SELECT current_setting('server_version_num')::integer")
    ours = {name: pair for name, pair in HOSTILE.items() if VERSIONS.get(name, 0) <= version}
    with role(server, "LOGIN") as user:
        for name, (value, _) in ours.items():
            server.execute(f"ALTER ROLE {user} SET {name} = {value}")
        held = {name: our for name, (_, our) in ours.items()}
        yield Database(url_of(server, database, user)), {**held, "transaction_isolation": "read committed"}


def test_our_session_settings_hold_whatever_the_roles_are(server: Server, empty_database: Database) -> None:
    with (
        hostile(server, empty_database) as (database, ours),
        closing(database.connect()) as connection,
    ):
        found = {name: shown(connection, name) for name in ours}
        connection.rollback()
        again = {name: shown(connection, name) for name in ours}
    assert found == again == ours


@pytest.mark.parametrize("autocommit", [True, False])
def test_settings_that_a_session_has_lost_hold_in_its_next_transaction(
    server: Server, empty_database: Database, autocommit: bool
) -> None:
    """As behind a pooler that gives each transaction another session."""
    found = {}
    with (
        hostile(server, empty_database) as (database, ours),
        closing(database.connect(autocommit=autocommit)) as connection,
    ):
        for name in ours.keys() - BETWEEN:
            connection.reset()
            connection.autocommit = autocommit
            found[name] = shown(connection, name)
            if not autocommit:
                connection.rollback()
    assert found == {name: ours[name] for name in found}
    assert "synchronous_commit" in found


def test_a_statement_may_take_longer_than_the_role_allows(server: Server, empty_database: Database) -> None:
    with (
        hostile(server, empty_database) as (database, _),
        closing(database.connect()) as connection,
    ):
        connection.reset()
        for _turn in range(2):
            execute(connection, "SELECT pg_sleep(0.3)")
            execute(connection, "SELECT pg_sleep(0.3)")
            connection.rollback()


def test_another_isolation_may_be_asked_for(database: Database) -> None:
    with closing(database.connect()) as connection:
        connection.set_session(isolation_level="REPEATABLE READ")
        assert shown(connection, "transaction_isolation") == "repeatable read"


def test_the_first_statement_may_be_bytes_a_composition_or_that_of_a_named_cursor(database: Database) -> None:
    with closing(database.connect()) as connection:
        for statement in (b"SHOW lock_timeout", SQL("SHOW lock_timeout")):
            connection.reset()
            with connection.cursor() as cursor:
                cursor.execute(statement)
                assert cursor.fetchall() == [("1min",)]
        connection.reset()
        with connection.cursor("named") as cursor:
            cursor.execute("SELECT current_setting('lock_timeout')")
            assert cursor.fetchall() == [("1min",)]


def test_a_connection_string_may_change_the_deadlines_but_not_the_session(server: Server) -> None:
    url = server.url() + "?connect_timeout=7&application_name=mine&options=-c%20synchronous_commit%3Doff"
    with closing(Database(url).connect()) as connection:
        parameters = connection.info.dsn_parameters
        assert (parameters["connect_timeout"], parameters["tcp_user_timeout"]) == ("7", "10000")
        assert shown(connection, "application_name") == "mine"
        assert shown(connection, "synchronous_commit") == "on"


def test_text_is_utf_8_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with closing(Database(server.url()).connect()) as connection:
        assert re.sub("[-_]", "", connection.encoding.upper()) == "UTF8"


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_connection_begins_outside_of_a_transaction(server: Server, autocommit: bool) -> None:
    with closing(Database(server.url()).connect(autocommit=autocommit)) as connection:
        assert connection.autocommit is autocommit
        assert connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE
