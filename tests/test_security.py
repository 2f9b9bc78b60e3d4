"""Who may do what: the loader's role, TLS with a CA of one's own, passwords that nobody gets to see."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

import psutil
import psycopg2
import pytest
from psycopg2.errors import InsufficientPrivilege
from psycopg2.extensions import parse_dsn

from db.connection import Database
from tests.certificates import make_ca, make_certificate
from tests.support import ROOT, Daemon, Server, detections, event, query, report, statuses, stopping, until

GOOD = statuses(report(1))
LOADER = "mobileye_loader"

# The role ---------------------------------------------------------------------------------------------


@pytest.fixture
def drops(server: Server, database: Database, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon under the role, in a database of another role."""
    roles = (ROOT / "db" / "roles.sql").read_text()
    for _ in range(2):
        query(database.url, roles)
    query(database.url, f"ALTER ROLE {LOADER} PASSWORD 'least'")
    with stopping(Daemon(tmp_path, server.url(parse_dsn(database.url)["dbname"], LOADER, "least"))) as daemon:
        yield daemon
    query(database.url, f"DROP OWNED BY {LOADER}; DROP ROLE {LOADER}")


def test_the_daemon_and_all_commands_work_under_the_role(drops: Daemon, database: Database) -> None:
    many = [report(i % 3600, vehicle=f"v{i // 3600}") for i in range(25_000)]
    drops.start()
    for number, content in enumerate([statuses(*many), GOOD, statuses(report(1, "x"), report(1), {}), b"[]"]):
        drops.drop(f"vehicles_status_{number}.json", content)
        drops.until_empty()
    for number in range(2):
        drops.drop("objects_detection_1.json", detections(event(1), event(2 + number)))
        drops.until_empty()
    assert drops.stop() == 0
    (drops.failed / "vehicles_status_3.json").rename(drops.failed / "other.json")
    (drops.failed / "other.json").write_bytes(statuses(report(9, vehicle="new")))
    assert drops.command("check", "incoming/failed/other.json").returncode == 0
    assert drops.command("replay", "failed").returncode == 0
    assert drops.command("replay", "rejected").stdout == still_wrong(database)
    for arguments in (["status"], ["url"], ["sql", "select * from vehicles_by_status"]):
        done = drops.command(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
    assert query(database.url, "SELECT count(*) FROM mobileye_data.vehicle_status_history") == [(25_002,)]
    assert query(database.url, "SELECT count(*) FROM mobileye_data.objects_detection_events") == [(6,)]
    assert "Traceback" not in drops.log()


def still_wrong(database: Database) -> str:
    """What a replay of the two records prints about those that are wrong for ever."""
    ((file_id,),) = query(database.url, "SELECT DISTINCT file_id FROM mobileye_data.open_rejects")
    name, place = "vehicles_status_2.json, record", f"of file {file_id}: $.vehicle_status[0]"
    conflict = "Expected the value stored under this key (status=driving extra=null), got another"
    return (
        f"{name} 0 {place}  conflict: {conflict}\n"
        f"{name} 2 {place}  invalid: Object missing required field `vehicle_id`\n"
        "2 records: 0 loaded, 2 still rejected\n"
    )


def test_a_recall_needs_the_rights_of_the_owner(drops: Daemon, database: Database) -> None:
    drops.drop("vehicles_status_1.json", GOOD)
    assert drops.start("--once", wait=False).wait() == 0
    refused = drops.command("recall", "vehicles_status_1.json")
    assert refused.returncode == 2
    assert refused.stderr == "error: the database refuses: permission denied for table rejected_records\n"
    drops.url = database.url
    assert drops.command("recall", "vehicles_status_1.json").returncode == 0
    assert drops.command("verify").returncode == 0


def test_partitions_are_made_for_the_role_and_are_not_its_own(drops: Daemon, database: Database) -> None:
    drops.drop("vehicles_status_1.json", GOOD)
    assert drops.start("--once", wait=False).wait() == 0
    partition = "SELECT tableowner FROM pg_tables WHERE tablename = 'vehicle_status_history_20220505'"
    assert query(database.url, partition) == [("tester",)]
    rows = "SELECT count(*) FROM mobileye_data.vehicle_status_history_20220505"
    assert query(database.url, rows) == [(1,)]


def test_an_owner_who_is_no_superuser_can_make_the_role(server: Server, tmp_path: Path) -> None:
    server.execute("CREATE ROLE an_owner LOGIN CREATEROLE PASSWORD 'own'")
    try:
        with server.database() as database:
            name = parse_dsn(database.url)["dbname"]
            server.execute(f"ALTER DATABASE {name} OWNER TO an_owner")
            owner = Daemon(tmp_path, server.url(name, "an_owner", "own"))
            assert owner.command("sql", "select 1").returncode == 0
            query(str(owner.url), (ROOT / "db" / "roles.sql").read_text())
            query(str(owner.url), f"ALTER ROLE {LOADER} PASSWORD 'least'")
            daemon = Daemon(tmp_path, server.url(name, LOADER, "least"))
            daemon.drop("vehicles_status_1.json", GOOD)
            assert daemon.start("--once", wait=False).wait() == 0
            assert daemon.command("verify").returncode == 0
    finally:
        server.execute(f"DROP ROLE IF EXISTS {LOADER}; DROP ROLE an_owner")


def test_verify_works_under_the_role(drops: Daemon) -> None:
    drops.drop("vehicles_status_1.json", GOOD)
    assert drops.start("--once", wait=False).wait() == 0
    assert drops.command("verify").stdout == "ledger, tables and folders add up\n"


TABLES = (
    "objects_detection_events",
    "vehicle_status_history",
    "vehicle_status",
    "ingested_files",
    "rejected_records",
)
FORBIDDEN = [
    *[f"DELETE FROM mobileye_data.{table}" for table in TABLES],
    *[f"TRUNCATE mobileye_data.{table}" for table in TABLES],
    *[f"DROP TABLE mobileye_data.{table}" for table in TABLES],
    *[f"ALTER TABLE mobileye_data.{table} ADD COLUMN x text" for table in TABLES],
    "UPDATE mobileye_data.objects_detection_events SET object_value = 0",
    "UPDATE mobileye_data.vehicle_status_history SET status = 'x'",
    "UPDATE mobileye_data.rejected_records SET original = '1'",
    "UPDATE mobileye_data.ingested_files SET sha256 = NULL",
    "INSERT INTO mobileye_data.vehicle_status_history_other SELECT * FROM mobileye_data.vehicle_status",
    "SELECT setval('mobileye_data.file_ids', 1)",
    "CREATE TABLE mobileye_data.x ()",
    "CREATE TABLE public.x ()",
    "CREATE SCHEMA x",
    "CREATE ROLE x",
    "CREATE DATABASE x",
    "SET ROLE tester",
    "SELECT * FROM pg_authid",
    "SELECT pg_read_file('/etc/passwd')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "CREATE EXTENSION file_fdw",
    "DROP SCHEMA mobileye_data CASCADE",
    "DROP FUNCTION mobileye_data.add_partition(text, date)",
    "COMMENT ON SCHEMA mobileye_data IS 'mine'",
    "SELECT mobileye_data.begin_drop('vehicle_status_history', '2022-05-05')",
    "SELECT mobileye_data.drop_day('vehicle_status_history', '2022-05-05')",
    "SELECT mobileye_data.drop_strays('vehicle_status_history', '2022-05-05', 1)",
    "DELETE FROM mobileye_data.dropped_rows",
]


def test_the_role_may_do_nothing_else(drops: Daemon) -> None:
    for statement in FORBIDDEN:
        with pytest.raises(InsufficientPrivilege):
            drops.rows(statement)
            pytest.fail(f"permitted: {statement}")


def test_the_role_makes_no_partition_of_another_table(drops: Daemon) -> None:
    with pytest.raises(psycopg2.Error, match="is not partitioned"):
        drops.rows("SELECT mobileye_data.add_partition('ingested_files', '2022-01-01')")


def test_the_role_moves_rows_only_to_where_they_belong(drops: Daemon, database: Database) -> None:
    row = "INSERT INTO mobileye_data.vehicle_status_history VALUES ('x', '2022-05-05Z', 'y', NULL, 1)"
    query(database.url, row)
    move = "SELECT step FROM mobileye_data.bring_home('vehicle_status_history', 1)"
    until(lambda: drops.rows(move) == [("done",)])
    partition = "SELECT tableowner FROM pg_tables WHERE tablename = 'vehicle_status_history_20220505'"
    assert query(database.url, partition) == [("tester",)]
    with pytest.raises(InsufficientPrivilege):
        drops.rows("SELECT mobileye_data.make_partition('vehicle_status_history', '2022-05-06')")


def test_tables_that_are_not_there_are_reported_under_the_role(drops: Daemon, database: Database) -> None:
    query(database.url, "COMMENT ON SCHEMA mobileye_data IS 'of another version'")
    done = drops.command("status")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the database refuses: ") and done.stderr.count("\n") == 1


# TLS --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of two authorities; the first one has signed the server's certificate."""
    folder = tmp_path_factory.mktemp("tls")
    for parent in (folder, *folder.parents[: -len(Path(gettempdir()).parts)]):
        parent.chmod(0o755)
    make_certificate(folder, make_ca(folder, "right"))
    if os.geteuid() == 0:
        shutil.chown(folder / "server.key", "nobody")
    make_ca(folder, "wrong")
    return folder


@pytest.fixture(scope="module")
def tls_server(tls_folder: Path) -> Iterator[Server]:
    server = Server(tls_folder / "server")
    server.create()
    certificate = [
        f"ssl_{what}_file={tls_folder}/server.{end}" for what, end in (("cert", "crt"), ("key", "key"))
    ]
    server.start("fsync=off", "ssl=on", *certificate)
    yield server
    server.stop()


def verified(server: Server, folder: Path, ca: str, host: str = "127.0.0.1") -> str:
    url = server.url().replace("127.0.0.1", host)
    return f"{url}?sslmode=verify-full&sslrootcert={folder}/{ca}.crt"


def test_rows_travel_by_tls_if_the_servers_certificate_is_good(
    tls_server: Server, tls_folder: Path, tmp_path: Path
) -> None:
    daemon = Daemon(tmp_path, verified(tls_server, tls_folder, "right"))
    daemon.drop("vehicles_status_1.json", GOOD)
    assert daemon.start("--once", wait=False).wait() == 0
    asked = "SELECT ssl, count(*) FROM pg_stat_ssl, vehicle_status WHERE pid = pg_backend_pid() GROUP BY 1"
    assert daemon.command("sql", asked, "--csv").stdout == "ssl,count\nTrue,1\n"


@pytest.mark.parametrize(
    ("ca", "host", "reason"),
    [
        ("wrong", "127.0.0.1", "certificate verify failed"),
        ("right", "localhost", 'does not match host name "localhost"'),
        ("none", "127.0.0.1", "does not exist"),
    ],
)
@pytest.mark.parametrize("arguments", [[], ["status"]], ids=["daemon", "status"])
def test_a_server_that_can_not_prove_who_it_is_is_refused(
    tls_server: Server,
    tls_folder: Path,
    tmp_path: Path,
    arguments: list[str],
    ca: str,
    host: str,
    reason: str,
) -> None:
    done = Daemon(tmp_path, verified(tls_server, tls_folder, ca, host)).command(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the database refuses the connection: ") and reason in done.stderr
    assert done.stderr.count("\n") == 1 and tls_server.password not in done.stderr


def test_a_server_without_tls_is_refused(server: Server, tls_folder: Path, tmp_path: Path) -> None:
    done = Daemon(tmp_path, verified(server, tls_folder, "right")).command("status")
    assert done.returncode == 2
    assert "server does not support SSL" in done.stderr and server.password not in done.stderr


# Passwords --------------------------------------------------------------------------------------------


def command_lines() -> str:
    """Of all processes, as anyone on the machine may see them."""
    found = psutil.process_iter(["cmdline"])
    return "\n".join(" ".join(process.info["cmdline"] or ()) for process in found)


def parts_of(server: Server, database: Database) -> dict[str, object]:
    name = parse_dsn(database.url)["dbname"]
    login = {"DB_USER": "tester", "DB_PASSWORD": server.password}
    return {"DB_HOST": "127.0.0.1", "DB_PORT": server.port, "DB_NAME": name, **login}


@pytest.mark.parametrize("given", ["url", "parts"])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_password_is_seen_nowhere(
    server: Server, database: Database, tmp_path: Path, given: str, log_format: str
) -> None:
    url, parts = (database.url, {}) if given == "url" else (None, parts_of(server, database))
    daemon = Daemon(tmp_path, url, LOG_FORMAT=log_format, **parts)
    daemon.start(wait=False)
    daemon.drop("vehicles_status_1.json", GOOD)
    daemon.drop("vehicles_status_2.json", b"[]")
    daemon.until_empty()
    assert "main.py" in command_lines() and server.password not in command_lines()
    answers = [
        daemon.command(*words) for words in (["status"], ["verify"], ["check", "."], ["replay", "failed"])
    ]
    assert daemon.stop() == 0
    assert "watching" in daemon.log() and server.password not in daemon.log()
    assert [server.password in done.stdout + done.stderr for done in answers] == [False] * 4
    assert server.password in daemon.command("url").stdout


def test_the_password_of_the_embedded_database_is_seen_nowhere(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, None).start()
    password = (tmp_path / "data" / "password").read_text()
    daemon.drop("vehicles_status_1.json", b"[]")
    daemon.until_empty()
    assert "postgres" in command_lines() and password not in command_lines()
    done = daemon.command("status")
    assert daemon.stop() == 0
    assert password not in daemon.log() + done.stdout + done.stderr
    assert password not in (tmp_path / "data" / "postgres.log").read_text()


@pytest.mark.parametrize("arguments", [[], ["status"], ["verify"], ["check", "x"], ["replay", "rejected"]])
def test_a_wrong_password_is_not_shown(server: Server, tmp_path: Path, arguments: list[str]) -> None:
    done = Daemon(tmp_path, server.url(password="hunter2")).command(*arguments)
    assert done.returncode == 2
    assert "password authentication failed" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
