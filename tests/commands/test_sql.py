"""sql prints tables, CSV and JSON; whatever is wrong with a statement is one sentence."""

import csv
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from commands.errors import QueryFailed
from commands.sql import run
from commands.sql_forms import MAX_CELL, Form, told_apart
from db.connection import Database
from tests.support import ROOT, Daemon, Server, query, until

VALUES = """
    SELECT 1 AS number, 1.50 AS exact, 'x, "y"' AS text, NULL AS nothing, true AS truth,
           '2022-06-05T21:02:34.546Z'::timestamptz AS time, '{"a": [1]}'::jsonb AS object,
           ARRAY[1, 2] AS list, '\\x00ff'::bytea AS bytes
"""


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    connection = database.connect()
    yield connection
    connection.close()


def printed(connection: Connection, capsys: pytest.CaptureFixture[str], statement: str, form: Form) -> str:
    run(connection, statement, form)
    out: str = capsys.readouterr().out
    return out


def test_csv_can_be_read_back(connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = csv.DictReader(io.StringIO(printed(connection, capsys, VALUES, Form.CSV)))
    assert row == {
        "number": "1",
        "exact": "1.50",
        "text": 'x, "y"',
        "nothing": "",
        "truth": "True",
        "time": "2022-06-05 21:02:34.546000+00:00",
        "object": '{"a": [1]}',
        "list": "[1,2]",
        "bytes": "00ff",
    }


def test_json_can_be_read_back(connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = msgspec.json.decode(printed(connection, capsys, VALUES, Form.JSON))
    assert (row["number"], row["text"], row["nothing"], row["truth"]) == (1, 'x, "y"', None, True)
    assert (row["time"], row["object"], row["list"]) == ("2022-06-05T21:02:34.546000Z", {"a": [1]}, [1, 2])


#: What is lost where JSON is read and written again: a key that is there twice, numbers, spelling.
WRITTEN = (
    '{"a": 1e309, "a":12345678901234567890123,"b":0.12345678901234567890123 , "c":"\\u0000\\/", "d":-0.0e-99}'
)
OF_JSON = f"""
    SELECT '{WRITTEN}'::json AS written, ARRAY['{WRITTEN}'::json, NULL, '[1]'] AS listed,
           '{{"n": 1e30, "t": 0.10}}'::jsonb AS stored, ARRAY[ARRAY['7.10'::jsonb]] AS nested,
           NULL::json AS nothing
"""


@pytest.mark.parametrize("form", [Form.CSV, Form.TABLE])
def test_json_is_printed_as_it_is_stored(
    connection: Connection, capsys: pytest.CaptureFixture[str], form: Form
) -> None:
    out = printed(connection, capsys, OF_JSON, form)
    parts = [
        WRITTEN,
        f"[{WRITTEN},null,[1]]",
        '{"n": 1000000000000000000000000000000, "t": 0.10}',
        "[[7.10]]",
    ]
    for part in parts:
        # As CSV quotes, and as a table cuts.
        assert part.replace('"', '""') in out if form is Form.CSV else part[:MAX_CELL] in out


def test_json_within_json_keeps_every_key_and_digit(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(connection, capsys, OF_JSON, Form.JSON)
    written = re.sub(r"\s", "", WRITTEN)
    assert re.sub(r"\s", "", out) == (
        f'[{{"written":{written},"listed":[{written},null,[1]],'
        '"stored":{"n":1000000000000000000000000000000,"t":0.10},"nested":[[7.10]],"nothing":null}]'
    )
    assert '\n      "a": 1e309,\n' in out  # laid out, to be edited


@pytest.mark.parametrize("stored", ['"\\ud83d"', "[" * 3000 + "]" * 3000])
def test_json_that_can_not_be_laid_out_is_printed_as_it_stands(
    connection: Connection, capsys: pytest.CaptureFixture[str], stored: str
) -> None:
    out = printed(connection, capsys, f"SELECT '{stored}'::json AS a", Form.JSON)
    assert out == f'[{{"a":{stored}}}\n]\n'


@pytest.mark.parametrize(
    ("value", "plain", "as_json"),
    [
        ("1.50::numeric", "1.50", "1.50"),
        ("1e-10::numeric", "0.0000000001", "1E-10"),
        ("1e400::numeric", "1" + "0" * 400, "1" + "0" * 400),
        ("12345678901234567890.12345678901234567890", *["12345678901234567890.12345678901234567890"] * 2),
        ("'NaN'::numeric", "NaN", '"NaN"'),
        ("ARRAY[1.50, NULL]", "[1.50,null]", "[1.50,null]"),
        ("0.1::float8", "0.1", "0.1"),
        ("'-Infinity'::float8", "-Infinity", '"-Infinity"'),
        ("ARRAY['NaN'::float8]", '["NaN"]', '["NaN"]'),
    ],
)
def test_numbers_are_printed_with_all_their_digits(
    connection: Connection, capsys: pytest.CaptureFixture[str], value: str, plain: str, as_json: str
) -> None:
    ((_,), (shown,)) = csv.reader(io.StringIO(printed(connection, capsys, f"SELECT {value} AS a", Form.CSV)))
    assert shown == plain
    out = printed(connection, capsys, f"SELECT {value} AS a", Form.JSON)
    assert re.sub(r"\s", "", out) == f'[{{"a":{as_json}}}]'


@pytest.mark.parametrize(
    ("value", "as_text"),
    [
        ("'infinity'::timestamptz", "infinity"),
        ("'-infinity'::timestamp", "-infinity"),
        ("'infinity'::date", "infinity"),
        ("ARRAY['-infinity'::date]", '["-infinity"]'),
        ("tstzrange('2022-01-01Z', 'infinity')", '["2022-01-01 00:00:00+00",infinity)'),
        ("'0044-03-15 BC'::date", "0044-03-15 BC"),
        ("'12000-01-01'::timestamptz", "12000-01-01 00:00:00+00"),
        ("'24:00'::time", "24:00:00"),
        ("'1 mon 2 h'::interval", "1 mon 02:00:00"),
    ],
)
@pytest.mark.parametrize("form", list(Form))
def test_times_that_python_does_not_have_are_printed_as_the_database_writes_them(
    connection: Connection, capsys: pytest.CaptureFixture[str], value: str, as_text: str, form: Form
) -> None:
    out = printed(connection, capsys, f"SELECT {value} AS a", form)
    match form:
        case Form.TABLE:
            assert out.splitlines()[2].strip() == as_text
        case Form.CSV:
            assert list(csv.reader(io.StringIO(out))) == [["a"], [as_text]]
        case Form.JSON:
            (row,) = msgspec.json.decode(out)
            assert row["a"] == (msgspec.json.decode(as_text) if value.startswith("ARRAY") else as_text)


def test_two_columns_of_one_name_are_told_apart_in_json(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = msgspec.json.decode(printed(connection, capsys, "SELECT 1 AS a, 2 AS a, 3 AS a_2", Form.JSON))
    assert row == {"a": 1, "a_3": 2, "a_2": 3}


def test_names_that_numbers_made_are_told_apart_too() -> None:
    assert told_apart(["a", "a", "b", "a", "a_3"]) == ["a", "a_2", "b", "a_4", "a_3"]


def test_a_table_has_a_heading_a_line_for_each_row_and_a_count(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(
        connection, capsys, "SELECT n, repeat('x', 90) AS wide FROM generate_series(1, 3) n", Form.TABLE
    )
    lines = out.splitlines()
    assert lines[0].split() == ["n", "┃", "wide"] and lines[-1] == "(3 rows)"
    assert [line.split() for line in lines[2:-1]] == [[str(n), "│", "x" * 90] for n in (1, 2, 3)]


def test_long_values_are_cut_in_tables_alone(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    statement = "SELECT repeat('x', 101) AS cut, repeat(E'\\x01', 99) AS escaped, repeat('y', 100) AS whole"
    lines = printed(connection, capsys, statement, Form.TABLE).splitlines()
    assert lines[2].split() == ["x" * 100 + "…", "│", "\\x01" * 25 + "…", "│", "y" * 100]
    assert lines[-1] == "(1 row, long values cut: --csv and --json print them whole)"
    for form in (Form.CSV, Form.JSON):
        assert "x" * 101 in printed(connection, capsys, statement, form)


def test_columns_stand_below_each_other_whatever_the_width_of_a_character(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(connection, capsys, "SELECT '東京' AS a, 1 AS b UNION ALL SELECT 'x', 2", Form.TABLE)
    assert out.splitlines()[2:4] == [" 東京 │ 1", " x    │ 2"]


@pytest.mark.parametrize("form", list(Form))
def test_rows_of_all_pages_are_printed(
    connection: Connection, capsys: pytest.CaptureFixture[str], form: Form
) -> None:
    statement = (
        "SELECT CASE n % 2000 WHEN 0 THEN repeat('n', n / 1000) END AS a FROM generate_series(1, 4001) n"
    )
    out = printed(connection, capsys, statement, form)
    if form is Form.TABLE:
        assert len(out.splitlines()) == 4001 + 3 and out.endswith("\n(4,001 rows)\n")
    elif form is Form.CSV:
        assert len(out.splitlines()) == 4001 + 1
    else:
        assert [row["a"] for row in msgspec.json.decode(out)][1998:2001] == [None, "nn", None]


def test_a_result_is_not_held_in_memory(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed first is printed before the last row exists."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(QueryFailed, match="division by zero"):
        run(connection, "SELECT 1 / (n - 5000) AS a FROM generate_series(1, 6000) n", Form.CSV)
    assert len(out.getvalue().splitlines()) > 2000


@pytest.mark.parametrize(
    ("statement", "count"), [("SELECT 1", "(1 row)"), ("SELECT 1 WHERE false", "(0 rows)")]
)
def test_rows_are_counted(
    connection: Connection, capsys: pytest.CaptureFixture[str], statement: str, count: str
) -> None:
    assert printed(connection, capsys, statement, Form.TABLE).splitlines()[-1] == count


@pytest.mark.parametrize(("form", "expected"), [(Form.CSV, "a\n"), (Form.JSON, "[]\n")])
def test_no_rows_are_reported_in_each_form(
    connection: Connection, capsys: pytest.CaptureFixture[str], form: Form, expected: str
) -> None:
    assert printed(connection, capsys, "SELECT 1 AS a WHERE false", form) == expected


def test_what_a_table_shows_does_not_command_the_terminal(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(
        connection, capsys, "SELECT E'\\x1b[31m[bold]red[/]\\r\\n\\u202e' AS \"\x1b[1m[b]\"", Form.TABLE
    )
    assert out.replace("\n", "").isprintable()
    assert "\\x1b[31m[bold]red[/]\\r\\n\\u202e" in out and "\\x1b[1m[b]" in out


def test_a_percent_sign_is_a_percent_sign(connection: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(connection, capsys, "SELECT '%s' LIKE '%' AS a", Form.CSV) == "a\nTrue\n"


@pytest.mark.parametrize(
    "statement", ["EXPLAIN SELECT 1", "SHOW timezone", "VALUES (1)", "TABLE open_rejects;"]
)
def test_every_statement_that_has_rows_is_printed(
    connection: Connection, capsys: pytest.CaptureFixture[str], statement: str
) -> None:
    run(connection, statement, Form.CSV)
    out, err = capsys.readouterr()
    assert out and not err


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t (a int)",
        "INSERT INTO vehicle_status SELECT 'v', now(), 'driving', NULL, 0",
        "INSERT INTO vehicle_status SELECT 'v', now(), 'driving', NULL, 0 RETURNING 1",
        "SELECT nextval('file_ids')",
        "SELECT 1; DELETE FROM vehicle_status",
    ],
)
def test_nothing_is_changed_unless_asked(connection: Connection, statement: str) -> None:
    with pytest.raises(QueryFailed, match=r"read-only transaction; with --write the statement may change"):
        run(connection, statement, Form.TABLE)


def test_of_several_statements_the_rows_of_the_last_are_printed(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    run(connection, "SET timezone = 'Asia/Tokyo'; SELECT 1 AS a; SHOW timezone", Form.CSV)
    assert tuple(capsys.readouterr()) == (
        "TimeZone\nAsia/Tokyo\n",
        "several statements: these are the rows of the last\n",
    )


def test_of_several_statements_all_are_done_or_none(connection: Connection, database: Database) -> None:
    with pytest.raises(QueryFailed, match="division by zero"):
        run(connection, "CREATE TABLE t (a int); SELECT 1/0", Form.TABLE, may_write=True)
    assert query(database.url, "SELECT to_regclass('mobileye_data.t')") == [(None,)]


@pytest.mark.parametrize(
    ("statement", "status"),
    [
        ("CREATE TABLE t (a int)", "CREATE TABLE"),
        ("INSERT INTO vehicle_status SELECT 'v', now(), 'driving', NULL, 0", "INSERT 0 1"),
        ("VACUUM vehicle_status", "VACUUM"),
        ("DO $$ BEGIN RAISE NOTICE 'x'; END $$", "DO"),
    ],
)
def test_a_statement_without_rows_is_done_and_prints_its_status(
    connection: Connection, capsys: pytest.CaptureFixture[str], statement: str, status: str
) -> None:
    run(connection, statement, Form.CSV, may_write=True)
    assert tuple(capsys.readouterr()) == ("", f"{status}\n")


def test_what_a_statement_changed_stays(database: Database, connection: Connection) -> None:
    run(connection, "CREATE TABLE t AS SELECT 7 AS a", Form.TABLE, may_write=True)
    with psycopg2.connect(database.url) as other, other.cursor() as cursor:
        cursor.execute("SELECT a FROM mobileye_data.t")
        assert cursor.fetchone() == (7,)
    other.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELECT * FROM nope", 'relation "nope" does not exist'),
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("", "can't execute an empty query"),
        ("SELECT 1/0", "division by zero"),
        ("COPY vehicle_status TO STDOUT", "can't execute COPY TO: use the copy_to() method instead"),
        ("SELECT '\udcff'", "the statement is not UTF-8"),
        (
            "SELECT pg_terminate_backend(pg_backend_pid())",
            "terminating connection due to administrator command",
        ),
    ],
)
def test_an_error_is_one_sentence(connection: Connection, statement: str, message: str) -> None:
    with pytest.raises(QueryFailed) as caught:
        run(connection, statement, Form.TABLE)
    assert str(caught.value).removeprefix("FATAL:  ") == message


def test_the_command_prints_an_error_and_ends_with_1(daemon: Daemon) -> None:
    done = daemon.command("sql", "select * from nope")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", 'error: relation "nope" does not exist\n')


def test_the_command_writes_only_if_asked(daemon: Daemon) -> None:
    statement = "create table t as select 1"
    assert daemon.command("sql", statement).returncode == 1
    assert daemon.command("sql", "--write", statement).stderr == "SELECT 1\n"


def sleepers(daemon: Daemon, server: Server) -> list[tuple[int]]:
    """Returns the server processes of the daemon's database that sleep."""
    name = str(daemon.url).rpartition("/")[2]
    statement = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname"
    return server.execute(f"{statement} = '{name}'")


@contextmanager
def sleeping(daemon: Daemon) -> Iterator["subprocess.Popen[bytes]"]:
    """A command, in a process group of its own, whose statement does not end."""
    command = [sys.executable, str(ROOT / "main.py"), "sql", "select pg_sleep(1000)"]
    with subprocess.Popen(
        command, cwd=daemon.folder, env=daemon.environment(), stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        yield process


def test_ctrl_c_cancels_the_statement(daemon: Daemon, server: Server) -> None:
    with sleeping(daemon) as process:
        until(lambda: sleepers(daemon, server))
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 1 and process.stderr is not None
        assert process.stderr.read() == b"error: canceling statement due to user request\n"
    until(lambda: not sleepers(daemon, server))


def test_ctrl_c_ends_a_statement_of_a_frozen_server_process(daemon: Daemon, server: Server) -> None:
    with sleeping(daemon) as process:
        ((pid,),) = until(lambda: sleepers(daemon, server))
        os.kill(pid, signal.SIGSTOP)
        try:
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(20) == 1 and process.stderr is not None
            assert b"Traceback" not in process.stderr.read()
        finally:
            os.kill(pid, signal.SIGCONT)
