"""The program as its user meets it: started in a terminal, fed with files in every way, asked, stopped."""

import gzip
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from db import schema
from tests.support import ROOT, Daemon, Server, detections, drop, event, report, statuses, until

#: The guarantees must not lean on what one of them can; without events the scans have to be frequent.
OBSERVERS = {"native": 60, "polling": 60, "off": 0.3}

KINDS = {
    "objects_detection_": ("objects_detection_events", 2),
    "vehicles_status_": ("vehicle_status_history", 1),
}


@pytest.fixture(scope="module", params=OBSERVERS)
def running(
    request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """One daemon for all the ways in which a file may arrive."""
    with server.database() as database:
        settings = {"OBSERVER": request.param, "RESCAN_SECONDS": OBSERVERS[request.param], "WORKERS": 1}
        daemon = Daemon(tmp_path_factory.mktemp(request.param), database.url, **settings).start()
        yield daemon
        assert daemon.stop() == 0
        assert not daemon.failed.exists() or not os.listdir(daemon.failed)


def content(prefix: str, vehicle: str) -> bytes:
    """Two elements of that kind, of a vehicle of its own."""
    if prefix == "objects_detection_":
        return detections(event(1, vehicle=vehicle), event(2, vehicle=vehicle))
    return statuses(report(1, vehicle=vehicle), report(2, vehicle=vehicle))


def count(daemon: Daemon, prefix: str, vehicle: str) -> int:
    table = KINDS[prefix][0]
    ((rows,),) = daemon.rows(f"SELECT count(*) FROM mobileye_data.{table} WHERE vehicle_id = %s", [vehicle])
    return int(rows)


def byte_by_byte(source: Path, target: Path) -> None:
    with open(target, "wb", buffering=0) as file:
        for byte in source.read_bytes():
            file.write(bytes((byte,)))
            time.sleep(0.001)


def opened_again_for_each_part(source: Path, target: Path) -> None:
    text = source.read_bytes()
    for start in range(0, len(text), 20):
        with open(target, "ab") as file:
            file.write(text[start : start + 20])
        time.sleep(0.01)


def written_and_renamed(source: Path, target: Path) -> None:
    drop(target.parent, target.name, source.read_bytes())


def renamed_from_part(source: Path, target: Path) -> None:
    part = target.with_name(f"{target.name}.filepart")
    opened_again_for_each_part(source, part)
    part.rename(target)


def moved_in(source: Path, target: Path) -> None:
    source.rename(target)


def hard_linked(source: Path, target: Path) -> None:
    target.hardlink_to(source)


def copied(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-p", source, target], check=True)


def moved_across_file_systems(source: Path, target: Path) -> None:
    shared = Path("/dev/shm") / f"{os.getpid()}-{target.name}"
    shutil.move(source, shared)
    assert shared.stat().st_dev != target.parent.stat().st_dev
    subprocess.run(["mv", shared, target], check=True)


def unpacked(source: Path, target: Path) -> None:
    source = source.rename(source.with_name(target.name))
    subprocess.run(["tar", "cf", "packed.tar", source.name], cwd=source.parent, check=True)
    subprocess.run(["tar", "xf", source.parent / "packed.tar"], cwd=target.parent, check=True)


def synchronised(source: Path, target: Path) -> None:
    """As rsync does it: a dot-name with a random ending, its time set, then renamed."""
    hidden = target.with_name(f".{target.name}.Ab12Cd")
    opened_again_for_each_part(source, hidden)
    shutil.copystat(source, hidden)
    hidden.rename(target)


def synchronised_in_place(source: Path, target: Path) -> None:
    """As rsync --inplace does it: under its name from the start, its time set before it is closed."""
    with open(target, "wb", buffering=0) as file:
        for start in range(0, len(source.read_bytes()), 16):
            file.write(source.read_bytes()[start : start + 16])
            time.sleep(0.005)
        os.utime(file.fileno(), (1, 1))


def rewritten(source: Path, target: Path) -> None:
    """Cut off in the middle, then written again from the start."""
    target.write_bytes(source.read_bytes()[:50])
    synchronised_in_place(source, target)


WAYS = [
    byte_by_byte,
    opened_again_for_each_part,
    written_and_renamed,
    renamed_from_part,
    moved_in,
    hard_linked,
    copied,
    moved_across_file_systems,
    unpacked,
    synchronised,
    synchronised_in_place,
    rewritten,
]


def test_files_are_loaded_once_and_whole_however_they_arrive(running: Daemon, tmp_path: Path) -> None:
    expected = {}
    for arrive in WAYS:
        for prefix, (_, rows_each) in KINDS.items():
            name = f"{prefix}{arrive.__name__}.json"
            source = tmp_path / f"{name}.source"
            source.write_bytes(content(prefix, arrive.__name__))
            arrive(source, running.incoming / name)
            expected[name, prefix, arrive.__name__] = 2 * rows_each, [("loaded", 1, 2 * rows_each)]
    running.until_empty()
    assert {key: (count(running, *key[1:]), ledger(running, key[0])) for key in expected} == expected


def ledger(daemon: Daemon, name: str) -> list[tuple[object, ...]]:
    return daemon.rows(
        "SELECT state, deliveries, rows_inserted FROM mobileye_data.ingested_files WHERE name = %s", [name]
    )


@pytest.mark.parametrize(("ending", "compress"), [("gz", gzip.compress), ("zst", zstandard.compress)])
def test_a_compressed_file_is_loaded_even_if_it_is_written_slowly(
    running: Daemon, tmp_path: Path, ending: str, compress: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "source").write_bytes(compress(content("vehicles_status_", ending)))
    byte_by_byte(tmp_path / "source", running.incoming / f"vehicles_status_1.json.{ending}")
    running.until_empty()
    assert count(running, "vehicles_status_", ending) == 2


def test_other_names_and_folders_are_left_alone(running: Daemon) -> None:
    others = [".a.json", "a.json.tmp", "a.json.part", "a.json.filepart", "a.txt"]
    for name in others:
        (running.incoming / name).write_bytes(content("vehicles_status_", "nobody"))
    (running.incoming / "folder.json").mkdir()
    (running.incoming / "folder.json" / "inside.json").write_bytes(content("vehicles_status_", "nobody"))
    for name in ("vehicles_status_first.json", "vehicles_status_second.json"):
        running.drop(name, content("vehicles_status_", name))
        until(lambda: ledger(running, name))  # noqa: B023
    until(lambda: running.left() == sorted(others))
    assert count(running, "vehicles_status_", "nobody") == 0
    assert (running.incoming / "folder.json" / "inside.json").exists()
    for name in others:
        (running.incoming / name).unlink()


def test_nothing_of_a_file_is_seen_before_it_is_whole(running: Daemon) -> None:
    text = content("objects_detection_", "torn")
    with open(running.incoming / "objects_detection_torn.json", "wb", buffering=0) as file:
        for byte in text[:-1]:
            file.write(bytes((byte,)))
            time.sleep(0.001)
        running.drop("vehicles_status_torn.json", content("vehicles_status_", "torn"))
        until(lambda: count(running, "vehicles_status_", "torn"))
        assert count(running, "objects_detection_", "torn") == 0
        file.write(text[-1:])
    running.until_empty()
    assert count(running, "objects_detection_", "torn") == 4


def test_a_linked_watch_folder_is_watched(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    daemon.incoming.symlink_to("real")
    daemon.start()
    daemon.drop("vehicles_status_1.json", content("vehicles_status_", "linked"))
    daemon.until_empty()
    assert count(daemon, "vehicles_status_", "linked") == 2


def test_files_that_were_there_or_came_while_it_was_down_are_loaded(daemon: Daemon) -> None:
    for start in ("first", "second"):
        daemon.drop(f"objects_detection_{start}.json", content("objects_detection_", start))
        daemon.drop(f"vehicles_status_{start}.json", content("vehicles_status_", start))
        daemon.start()
        daemon.until_empty()
        assert daemon.stop() == 0
        assert (count(daemon, "objects_detection_", start), count(daemon, "vehicles_status_", start)) == (
            4,
            2,
        )


# The other commands -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def idle(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A folder and a database with our tables, without a running daemon."""
    with server.database() as database:
        connection = database.connect()
        schema.apply(connection)
        connection.close()
        yield Daemon(tmp_path_factory.mktemp("idle"), database.url)


@pytest.mark.parametrize("command", ["", "status", "sql", "url", "demo"])
def test_help_explains_each_command(idle: Daemon, command: str) -> None:
    done = idle.command(*command.split(), "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert "Usage: main.py" in done.stdout and "--help" in done.stdout
    assert any(line.strip().endswith(".") for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bogus"], "No such option: --bogus"),
        (["bogus"], "No such command 'bogus'"),
        (["status", "--csv"], "No such option: --csv"),
        (["sql"], "statement"),
        (["demo", "--rate", "-1"], "--rate"),
    ],
)
def test_a_wrong_option_is_explained_in_one_sentence(
    idle: Daemon, arguments: list[str], message: str
) -> None:
    done = idle.command(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert_one_sentence(done.stderr, message)


def assert_one_sentence(stderr: str, message: str) -> None:
    assert stderr.startswith("error: ") and message in stderr and stderr.count("\n") == 1, stderr


@pytest.mark.parametrize("arguments", [[], ["status"], ["url"], ["demo"]])
def test_a_wrong_setting_is_explained_in_one_sentence(tmp_path: Path, arguments: list[str]) -> None:
    done = Daemon(tmp_path, None, WORKERS="none").command(*arguments)
    assert done.returncode == 2 and os.listdir(tmp_path) == [".env"]
    assert_one_sentence(done.stderr, "WORKERS is 'none'")


@pytest.mark.parametrize("arguments", [["status"], ["sql", "select 1"]])
def test_a_database_that_is_away_is_explained_in_one_sentence(
    server: Server, tmp_path: Path, arguments: list[str]
) -> None:
    done = Daemon(tmp_path, "postgresql://u:hunter2@127.0.0.1:1/d").command(*arguments)
    assert done.returncode == 1 and "hunter2" not in done.stdout + done.stderr
    assert_one_sentence(done.stderr, "Connection refused")


def wrong_password(server: Server, url: str) -> str:
    return url.replace(server.password, "hunter2")


def missing_database(server: Server, url: str) -> str:
    return server.url("no_such_database")


def missing_role(server: Server, url: str) -> str:
    return url.replace("tester:", "nobody:")


def missing_privilege(server: Server, url: str) -> str:
    name = url.rpartition("/")[2]
    if not server.execute("SELECT 1 FROM pg_roles WHERE rolname = 'stranger'"):
        server.execute(f"CREATE ROLE stranger LOGIN PASSWORD '{server.password}'")
    server.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO stranger")
    return url.replace("tester:", "stranger:")


@pytest.mark.parametrize(
    ("arguments", "wrong", "message"),
    [
        ([], wrong_password, "password authentication failed"),
        ([], missing_database, "does not exist"),
        ([], missing_role, "password authentication failed"),
        ([], missing_privilege, "permission denied"),
        (["status"], wrong_password, "password authentication failed"),
        (["status"], missing_privilege, "permission denied"),
    ],
)
def test_what_a_person_has_to_fix_is_explained_in_one_sentence_and_nothing_is_touched(
    server: Server,
    empty_database: object,
    tmp_path: Path,
    arguments: list[str],
    wrong: Callable[[Server, str], str],
    message: str,
) -> None:
    url = wrong(server, empty_database.url)  # type: ignore[attr-defined]
    daemon = Daemon(tmp_path, url)
    path = daemon.drop("vehicles_status_1.json", content("vehicles_status_", "v"))
    done = daemon.command(*arguments)
    assert (done.returncode, path.exists(), daemon.failed.exists() and os.listdir(daemon.failed)) in [
        (2, True, False),
        (2, True, []),
    ]
    assert_one_sentence(done.stderr, message)
    assert "hunter2" not in done.stderr and server.password not in done.stderr


def test_a_reader_that_goes_away_gets_no_traceback(idle: Daemon) -> None:
    command = [sys.executable, str(ROOT / "main.py"), "sql", "select generate_series(1, 100000)", "--csv"]
    with subprocess.Popen(
        command, cwd=idle.folder, env=idle.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"generate_series\n"
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_full_disk_is_explained_in_one_sentence(idle: Daemon) -> None:
    for arguments in (["sql", "select 1"], ["status"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, str(ROOT / "main.py"), *arguments],
                cwd=idle.folder,
                env=idle.environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert done.returncode == 1
        assert_one_sentence(done.stderr, "No space left on device")


def test_the_url_works_for_other_tools(idle: Daemon) -> None:
    url = idle.command("url").stdout.strip()
    assert url == idle.url
    done = subprocess.run(["psql", url, "-Atc", "select 6 * 7"], capture_output=True, text=True)
    assert done.stdout == "42\n"
