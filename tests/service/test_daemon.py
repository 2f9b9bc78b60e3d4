"""The daemon with real processes: bursts, half-written files, dying workers, outages, a second daemon."""

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import psutil
import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from commands.run import prepare_folders
from config import Settings
from db.connection import Database
from processing.batch import FileTask, Outcome
from processing.errors import BatchLost, DatabaseUnavailable, Misconfigured, TransactionFailed
from processing.loader import Loader
from service.build import make_daemon
from service.daemon import Daemon as LoadingDaemon
from service.heartbeat import Heartbeat
from service.inbox import FileArrived
from service.kept_client import KeptClient
from service.loader_factory import LoaderFactory
from service.outage import TimedOut
from service.signals import StopSignal
from service.suspects import MAX_CRASHES
from service.worker import Results
from tests.service.support import to_log
from tests.support import Daemon, Server, detections, event, query, report, running_server, statuses, until


def one_status(number: int) -> bytes:
    return statuses(report(vehicle=f"v{number}"))


def states(daemon: Daemon) -> Counter[str]:
    """How many files have come to which end, each delivered once."""
    assert not daemon.rows("SELECT 1 FROM mobileye_data.ingested_files WHERE deliveries > 1")
    return ends(daemon)


def ends(daemon: Daemon) -> Counter[str]:
    """How many files have come to which end; one that is kept after its COMMIT is delivered once more."""
    return Counter(state for (state,) in daemon.rows("SELECT state FROM mobileye_data.ingested_files"))


def vehicles(daemon: Daemon) -> int:
    ((count,),) = daemon.rows("SELECT count(*) FROM mobileye_data.vehicle_status_history")
    return int(count)


# Bursts -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_burst_of_20_000_files_is_loaded_while_it_is_written(daemon: Daemon) -> None:
    daemon.start()
    done = daemon.command("demo", "--rate", "0", "--count", "20000", "--records", "2")
    assert done.returncode == 0, done.stderr
    daemon.until_empty(90)
    assert states(daemon) == {"loaded": 20_000}
    counts = "sum(rows_read), sum(rows_inserted + rows_duplicate + rows_rejected)"
    assert daemon.rows(f"SELECT {counts} FROM mobileye_data.ingested_files") == [(40_000, 40_000)]


@pytest.fixture
def rarely_scanning(tmp_path: Path, database: Database) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, database.url, RESCAN_SECONDS=600).start()
    yield daemon
    assert daemon.stop() == 0


def test_files_of_which_the_system_lost_the_events_are_loaded_at_once(rarely_scanning: Daemon) -> None:
    daemon = rarely_scanning
    daemon.drop("vehicles_status_first.json", one_status(-1))
    daemon.until_empty()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    for number in range(8000):
        daemon.drop(f"vehicles_status_{number}.json", one_status(number))
    daemon.process.send_signal(signal.SIGCONT)
    daemon.until_empty(60)
    until(lambda: "queue overflowed" in daemon.log())
    assert states(daemon) == {"loaded": 8001} and vehicles(daemon) == 8001


def test_two_daemons_on_one_folder_load_each_file_once(daemon: Daemon) -> None:
    other = Daemon(daemon.folder, daemon.url, RESCAN_SECONDS=0.2)
    for number in range(2000):
        daemon.drop(f"vehicles_status_{number}.json", one_status(number))
    events = [event(0, ("cars", 1), vehicle=f"v{number}") for number in range(30_000)]
    daemon.drop("objects_detection_large.json", detections(*events))
    daemon.start(wait=False)
    other.start(wait=False)
    daemon.until_empty(60)
    assert (daemon.stop(), other.stop()) == (0, 0)
    assert states(daemon) == {"loaded": 2001} and vehicles(daemon) == 2000
    assert daemon.rows("SELECT count(*) FROM mobileye_data.objects_detection_events") == [(30_000,)]
    assert " failed " not in daemon.log() and "Traceback" not in daemon.log()


# Files that are not whole -------------------------------------------------------------------------


def test_a_file_that_ends_in_the_middle_fails_when_it_has_settled(tmp_path: Path, database: Database) -> None:
    daemon = Daemon(tmp_path, database.url, SETTLE_SECONDS=1.6).start()
    daemon.drop("vehicles_status_1.json", one_status(1)[:-3])
    daemon.until_empty()
    assert states(daemon) == {"failed": 1}
    assert sorted(os.listdir(daemon.failed)) == [
        "vehicles_status_1.json",
        "vehicles_status_1.json.reason.txt",
    ]
    assert "it ends in the middle" in (daemon.failed / "vehicles_status_1.json.reason.txt").read_text()
    assert daemon.stop() == 0
    lines = [line.split()[2] for line in daemon.log().splitlines() if " file=" in line]
    assert lines == ["waiting", "failed"]


def test_a_file_is_waited_for_while_a_writer_has_it_open_or_keeps_changing_it(
    tmp_path: Path, database: Database
) -> None:
    daemon = Daemon(tmp_path, database.url, SETTLE_SECONDS=0.3, RESCAN_SECONDS=0.1).start()
    text = one_status(1)
    path = daemon.incoming / "vehicles_status_changing.json"
    with open(daemon.incoming / "vehicles_status_open.json", "wb", buffering=0) as held:
        held.write(text)
        for end in range(len(text) - 12, len(text)):
            path.write_bytes(text[:end])
            time.sleep(0.06)
        held.seek(0)
        held.write(one_status(2))
    path.write_bytes(text)
    daemon.until_empty()
    assert daemon.stop() == 0
    assert states(daemon) == {"loaded": 2} and not os.listdir(daemon.failed)


# Workers ------------------------------------------------------------------------------------------


def test_workers_killed_in_the_middle_cost_no_file(daemon: Daemon) -> None:
    events = [event(0, ("cars", 1), vehicle=f"v{number}") for number in range(30_000)]
    daemon.drop("objects_detection_large.json", detections(*events))
    for number in range(200):
        daemon.drop(f"vehicles_status_{number}.json", one_status(number))
    daemon.start()
    until(lambda: daemon.rows("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query ~ '^COPY'"))
    for worker in daemon.workers():
        worker.kill()
    daemon.until_empty(60)
    # A worker may be killed between a COMMIT and the deletion of its files.
    assert ends(daemon) == {"loaded": 201} and vehicles(daemon) == 200
    assert daemon.rows("SELECT count(*) FROM mobileye_data.objects_detection_events") == [(30_000,)]
    assert " worker died " in daemon.log()


class Troubled(Loader):
    """Does to itself what the names of its files say."""

    def load(self, batch: list[FileTask]) -> list[Outcome]:  # type: ignore[override]
        for work in batch:
            if not work.poison_reason:
                self._suffer(work.name)
        return super().load(batch)

    def _suffer(self, name: str) -> None:
        if "deadly" in name:
            os._exit(9)
        if "hanging" in name:
            signal.pause()
        if "killed" in name and os.access(name, os.W_OK):
            with open(name, "ab") as times:
                times.write(b".")
            if times_killed(name) <= MAX_CRASHES + 1 or "always" in name:
                os.kill(os.getpid(), signal.SIGKILL)


def times_killed(name: str) -> int:
    return os.stat(name).st_size


@dataclass(frozen=True)
class StartTroubled(LoaderFactory):
    def __call__(self, heartbeat: Heartbeat | None = None) -> Loader:
        loader = super().__call__(heartbeat)
        loader.__class__ = Troubled
        return loader


@pytest.fixture
def troubled(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """For here(): with files that load, and workers that suffer from the others."""
    monkeypatch.setattr("service.build.LoaderFactory", StartTroubled)
    monkeypatch.chdir(tmp_path)
    daemon = Daemon(tmp_path, database.url)
    for number in range(20):
        daemon.drop(f"vehicles_status_{number}.json", one_status(number))
    return daemon


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("deadly", "the worker process ended with exit code 9; 2 times, with this file alone"),
        ("hanging", "the worker process made no progress for 2 s; 2 times, with this file alone"),
    ],
)
def test_a_file_over_which_workers_die_or_hang_twice_fails_and_the_others_load(
    troubled: Daemon, database: Database, monkeypatch: pytest.MonkeyPatch, trouble: str, reason: str
) -> None:
    monkeypatch.setattr("service.heartbeat.HANG_SECONDS", 2.0)
    name = f"vehicles_status_{trouble}.json"
    troubled.drop(name, one_status(99))
    totals = here(troubled, database).run()
    assert (totals["loaded"], totals["failed"], totals["waiting"]) == (20, 1, 0)
    assert failures(troubled) == [(name, reason)]
    assert (troubled.failed / name).read_bytes() == one_status(99)


def test_a_file_whose_worker_is_killed_from_outside_again_and_again_is_loaded(
    troubled: Daemon, database: Database, tmp_path: Path
) -> None:
    name = "vehicles_status_killed.json"
    (tmp_path / name).touch()
    troubled.drop(name, one_status(99))
    totals = here(troubled, database).run()
    assert (totals["loaded"], totals["failed"], totals["waiting"]) == (21, 0, 0)
    assert times_killed(name) > MAX_CRASHES + 1


def test_a_file_over_which_the_system_kills_every_worker_fails_at_last(
    troubled: Daemon, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.suspects.MAX_KILLS", 4)
    name = "vehicles_status_killed_always.json"
    (tmp_path / name).touch()
    troubled.drop(name, one_status(99))
    totals = here(troubled, database).run()
    assert (totals["loaded"], totals["failed"], totals["waiting"]) == (20, 1, 0)
    assert times_killed(name) in (4, 5)  # once more if others shared its batch
    assert "was killed (SIGKILL" in (troubled.failed / f"{name}.reason.txt").read_text()


# Files large and small: one waits in the thread that sends, the other in the one that reads.
SMALL = detections(event())
LARGE = detections(*(event(0, ("cars", 1), vehicle=f"v{number}") for number in range(60_000)))


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_worker_that_waits_for_a_lock_does_not_hang(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr("service.heartbeat.HANG_SECONDS", 0.5)
    daemon = Daemon(tmp_path, database.url)
    daemon.drop("objects_detection_1.json", content)
    with closing(psycopg2.connect(database.url)) as locker:
        locker.cursor().execute("LOCK TABLE mobileye_data.objects_detection_events")
        release = threading.Timer(4, locker.rollback)
        release.start()
        totals = here(daemon, database).run()
        assert release.finished.is_set()
    assert (totals["loaded"], totals["failed"], totals["waiting"]) == (1, 0, 0)


BUSY = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may stop the server's processes")
def test_a_frozen_server_process_is_no_outage_and_no_file_to_blame(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.heartbeat.HANG_SECONDS", 0.5)
    monkeypatch.setattr("service.heartbeat.DATABASE_SECONDS", 1.5)
    daemon = Daemon(tmp_path, database.url)
    daemon.drop("objects_detection_1.json", SMALL)
    frozen: list[int] = []

    def freeze(locker: Connection) -> None:
        frozen.extend(pid for (pid,) in until(lambda: query(database.url, BUSY)))
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        locker.rollback()

    def thaw() -> None:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)

    with closing(psycopg2.connect(database.url)) as locker:
        locker.cursor().execute("LOCK TABLE mobileye_data.objects_detection_events")
        threading.Thread(target=freeze, args=(locker,)).start()
        release = threading.Timer(6, thaw)
        release.start()
        totals = here(daemon, database).run()
        release.join()
    assert (totals["loaded"], totals["failed"], totals["waiting"]) == (1, 0, 0)
    told = capsys.readouterr().err
    assert ' suspected file=objects_detection_1.json reason="the database did not answer this batch' in told
    assert " waiting for the database " not in told and " worker died " not in told


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("HANG_SECONDS", "DATABASE_SECONDS"):
        monkeypatch.setattr(f"service.heartbeat.{limit}", 0.7)


@pytest.mark.usefixtures("hurried")
def test_a_file_of_many_rows_makes_progress_however_long_it_takes(tmp_path: Path, database: Database) -> None:
    daemon = Daemon(tmp_path, database.url)
    kinds = [(f"kind {number}", 1) for number in range(10)]
    events = [event(second, *kinds, vehicle=f"v{v}") for v in range(70) for second in range(2000)]
    daemon.drop("objects_detection_1.json", detections(*events))
    started = time.monotonic()
    totals = here(daemon, database).run()
    assert (totals["loaded"], totals["rows"]) == (1, 1_400_000)
    assert time.monotonic() - started > 2


@pytest.mark.usefixtures("hurried")
def test_a_file_of_many_bytes_makes_progress_while_it_is_digested(tmp_path: Path, database: Database) -> None:
    daemon = Daemon(tmp_path, database.url)
    os.truncate(daemon.drop("objects_detection_1.json", b""), 1_500_000_000)
    started = time.monotonic()
    totals = here(daemon, database).run()
    assert totals["failed"] == 1 and "it holds zeros" in failures(daemon)[0][1]
    assert time.monotonic() - started > 1.4


def failures(daemon: Daemon) -> list[tuple[str, str]]:
    return daemon.rows("SELECT name, error FROM mobileye_data.ingested_files WHERE state = 'failed'")


def test_once_gives_up_a_database_that_goes_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.outage.ONCE_SECONDS", 1.0)
    daemon = Daemon(tmp_path, None)
    daemon.drop("vehicles_status_1.json", one_status(1))
    with pytest.raises(TimedOut, match="gave up waiting for the database after"):
        here(daemon, Database("postgresql://127.0.0.1:1/d")).run()
    assert daemon.left() == ["vehicles_status_1.json"]
    assert capsys.readouterr().err.count(" waiting for the database ") == 1


def fail_to_begin(*_: object) -> NoReturn:
    os._exit(1)


def test_workers_that_can_not_start_are_reported_once_and_tried_again(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon = Daemon(tmp_path, database.url)
    daemon.drop("vehicles_status_1.json", one_status(1))
    with monkeypatch.context() as patch:
        patch.setattr("service.worker._serve", fail_to_begin)
        process = here(daemon, database)
        fix = threading.Timer(6, patch.undo)
        fix.start()
        totals = process.run()
        fix.join()
    assert (totals["loaded"], totals["failed"], totals["waiting"]) == (1, 0, 0)
    told = [line for line in capfd.readouterr().err.splitlines() if "start" in line]
    told = [line for line in told if "still cannot start workers" not in line]  # for another reason
    assert [" ".join(line.split()[1:5]) for line in told] == [
        "warning cannot start workers",
        "info workers start again",
    ], told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the folder and a file to somebody else")
def test_a_file_that_may_be_read_but_not_removed_is_loaded_once_and_reported_twice(
    tmp_path: Path, database: Database
) -> None:
    """In a folder with the sticky bit, as /tmp is."""
    daemon = Daemon(tmp_path, database.url, RESCAN_SECONDS=0.5)
    daemon.prefix = ("setpriv", "--bounding-set=-all")
    path = daemon.drop("vehicles_status_1.json", one_status(1))
    daemon.incoming.chmod(0o1777)
    for owned in (daemon.incoming, path):
        os.chown(owned, 1234, 1234)
    daemon.start()
    until(lambda: " waiting file=vehicles_status_1.json" in daemon.log())
    daemon.drop("vehicles_status_2.json", one_status(2))
    until(lambda: daemon.left() == ["vehicles_status_1.json"])
    assert daemon.stop() == 0
    assert states(daemon) == {"loaded": 2}
    told = [line for line in daemon.log().splitlines() if "vehicles_status_1.json" in line]
    assert " writers can't be seen " in told.pop(0)
    assert len(told) == 2 and all("it can't be moved: Operation not permitted" in line for line in told), told
    assert "stopped loaded=2 duplicate=0 failed=0 waiting=1 rows=2" in daemon.log()


class ScriptedPool:
    """Its batches end as the test says."""

    size = 2

    def __init__(self) -> None:
        self.flights: list[Results] = []

    def load(self, batch: Sequence[FileTask]) -> Results:
        self.flights.append(Results())
        return self.flights[-1]

    def outcomes(self, results: Results) -> list[Outcome]:
        return results.result()

    def start(self) -> None:
        """There is nothing to start."""

    def alive(self) -> int:
        return self.size

    def check(self) -> None:
        """None hangs."""

    def stop(self, seconds: float) -> None:
        for flight in self.flights:
            if not flight.done():
                flight.set_exception(BatchLost("the workers were told to stop"))


def test_batches_cut_off_by_a_fatal_error_are_not_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = Daemon(tmp_path, None)
    for number in range(2):
        daemon.drop(f"vehicles_status_{number}.json", one_status(number))
    process = here(daemon, Database("postgresql://127.0.0.1:1/d"))
    process._pool = pool = cast(Any, ScriptedPool())
    process._scan()
    process._dispatch()
    assert len(pool.flights) == 2
    pool.flights[0].set_exception(Misconfigured("a table is missing"))
    with pytest.raises(Misconfigured, match="a table is missing"):
        process.run()
    assert capsys.readouterr().err == "" and len(daemon.left()) == 2


def test_a_batch_that_began_before_an_outage_does_not_end_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = Daemon(tmp_path, None)
    for number in range(4):
        daemon.drop(f"vehicles_status_{number}.json", one_status(number))
    process = here(daemon, Database("postgresql://127.0.0.1:1/d"))
    process._pool = pool = cast(Any, ScriptedPool())
    process._scan()
    process._dispatch()
    fails, succeeds = pool.flights
    fails.set_exception(DatabaseUnavailable("read-only"))
    succeeds.set_result([])

    def dispatched() -> int:
        process._dispatch()
        return len(pool.flights)

    process._wait()
    until(lambda: dispatched() == 3)
    pool.flights[2].set_exception(DatabaseUnavailable("read-only"))
    process._wait()
    until(lambda: dispatched() == 4)
    pool.flights[3].set_result([])
    process._wait()
    process._finish()
    told = [line for line in capsys.readouterr().err.splitlines() if "the database" in line]
    assert [" ".join(line.split()[1:5]) for line in told] == [
        "warning waiting for the",
        "info the database is",
    ], told


def test_a_batch_that_fails_while_nobody_is_answered_is_an_outage_and_no_file_to_blame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = Daemon(tmp_path, None)
    daemon.drop("vehicles_status_1.json", one_status(1))
    process = here(daemon, Database("postgresql://127.0.0.1:1/d"))
    process._pool = pool = cast(Any, ScriptedPool())
    process._scan()
    process._dispatch()
    pool.flights[0].set_exception(TransactionFailed("no answer"))

    def is_told() -> bool:
        process._wait()
        return process._outage is not None

    until(is_told)
    process._stop.event.set()
    until(lambda: time.monotonic() >= (process._outage.next_try if process._outage else 0.0))
    process._dispatch()
    pool.flights[1].set_exception(TransactionFailed("no answer"))
    process._wait()
    process._finish()
    told = capsys.readouterr().err
    assert told.count(' waiting for the database reason="no answer"') == 1 and " suspected " not in told
    assert process._probe is None and process._totals["waiting"] == 1


def here(daemon: Daemon, database: Database) -> LoadingDaemon:
    """The same daemon in this process."""
    settings = Settings(watch_folder=daemon.incoming, workers=2, rescan_seconds=0.2)
    prepare_folders(settings)
    return make_daemon(
        settings, database, lambda: database, KeptClient(None), to_log(), StopSignal(), once=True
    )


def test_a_daemon_that_was_only_made_has_started_nothing(tmp_path: Path) -> None:
    before = psutil.Process().children(), threading.enumerate()
    here(Daemon(tmp_path, None), Database("postgresql://127.0.0.1:1/d"))
    assert (psutil.Process().children(), threading.enumerate()) == before


def test_a_folder_that_is_taken_for_a_new_file_is_left_alone(tmp_path: Path, database: Database) -> None:
    """As polling does when the folder has got the inode of a file that was just deleted."""
    daemon = Daemon(tmp_path, database.url)
    daemon.drop("vehicles_status_1.json", one_status(1))
    inside = daemon.incoming / "folder.json" / "inside.json"
    inside.parent.mkdir()
    inside.touch()
    process = here(daemon, database)
    process.inbox.put(FileArrived("folder.json"))
    totals = process.run()
    assert (totals["loaded"], totals["failed"], totals["waiting"]) == (1, 0, 0)
    assert inside.exists()


# Outages ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ill_server() -> Iterator[Server]:
    """A server that the tests may stop."""
    with running_server() as server:
        yield server


@pytest.fixture
def patient(ill_server: Server, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose database is on that server."""
    with ill_server.database() as database:
        daemon = Daemon(tmp_path, database.url, WORKERS=2)
        yield daemon
        if daemon.process is not None:
            daemon.stop()


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    server.stop()
    yield
    server.start()


@contextmanager
def crashed(server: Server) -> Iterator[None]:
    server.stop(signal.SIGQUIT)
    yield
    server.start()


@contextmanager
def read_only(server: Server) -> Iterator[None]:
    server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    server.execute("SELECT pg_reload_conf()")
    yield
    for statement in ("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()"):
        query(server.url() + "?options=-c%20default_transaction_read_only%3Doff", statement)


def outages_told(daemon: Daemon) -> int:
    return daemon.log().count(" waiting for the database ")


@pytest.mark.parametrize("outage", [stopped, crashed, read_only])
def test_it_waits_for_the_database_says_so_once_and_goes_on(
    ill_server: Server, patient: Daemon, outage: Callable[[Server], AbstractContextManager[None]]
) -> None:
    patient.start()
    patient.drop("vehicles_status_before.json", one_status(0))
    patient.until_empty()
    with outage(ill_server):
        for number in range(1, 30):
            patient.drop(f"vehicles_status_{number}.json", one_status(number))
        until(lambda: outages_told(patient))
        patient.drop("vehicles_status_late.json", one_status(30))
    patient.until_empty(20)
    assert patient.stop() == 0
    assert states(patient) == {"loaded": 31} and not os.listdir(patient.failed)
    assert outages_told(patient) == 1
    assert patient.log().count(" the database is back ") == 1
    assert "Traceback" not in patient.log() and ill_server.password not in patient.log()


def test_it_says_when_the_database_is_there_that_it_waited_for_at_its_start(
    ill_server: Server, patient: Daemon
) -> None:
    with stopped(ill_server):
        patient.start(wait=False)
        until(lambda: outages_told(patient))
    until(lambda: " watching " in patient.log())
    assert patient.stop() == 0
    assert outages_told(patient) == 1 and patient.log().count(" the database is back ") == 1


def test_a_database_that_is_not_there_at_the_start_is_waited_for(ill_server: Server, patient: Daemon) -> None:
    patient.drop("vehicles_status_1.json", one_status(1))
    with stopped(ill_server):
        patient.start(wait=False)
        until(lambda: outages_told(patient))
    patient.until_empty(20)
    assert outages_told(patient) == 1 and states(patient) == {"loaded": 1}


def test_it_stops_in_the_middle_of_an_outage(ill_server: Server, patient: Daemon) -> None:
    patient.start()
    with stopped(ill_server):
        patient.drop("vehicles_status_1.json", one_status(1))
        until(lambda: outages_told(patient))
        assert patient.stop() == 0
    assert "waiting=1" in patient.log().splitlines()[-1]
    assert patient.left() == ["vehicles_status_1.json"]


def test_connections_that_are_killed_again_and_again_cost_no_file(daemon: Daemon, server: Server) -> None:
    daemon.start()
    name = str(daemon.url).rpartition("/")[2]
    for number in range(300):
        daemon.drop(f"vehicles_status_{number}.json", one_status(number))
        if number % 10 == 0:
            server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    daemon.until_empty(60)
    assert daemon.stop() == 0
    assert states(daemon) == {"loaded": 300} and vehicles(daemon) == 300
    assert not os.listdir(daemon.failed) and "Traceback" not in daemon.log()


def test_a_table_that_disappears_stops_it_and_touches_nothing(daemon: Daemon) -> None:
    daemon.start()
    daemon.rows("ALTER TABLE mobileye_data.ingested_files RENAME TO lost")
    daemon.drop("vehicles_status_1.json", one_status(1))
    assert daemon.wait(20) == 2
    assert ' ended reason="the database refuses' in daemon.log().splitlines()[-1]
    assert "Traceback" not in daemon.log()
    assert daemon.left() == ["vehicles_status_1.json"] and not os.listdir(daemon.failed)
    daemon.rows("ALTER TABLE mobileye_data.lost RENAME TO ingested_files")
    daemon.start()
    daemon.until_empty()
    assert states(daemon) == {"loaded": 1}


# What it costs ------------------------------------------------------------------------------------


def cpu_seconds(daemon: Daemon) -> float:
    assert daemon.process is not None
    main = psutil.Process(daemon.process.pid)
    return sum(sum(process.cpu_times()[:2]) for process in [main, *main.children(recursive=True)])


@pytest.mark.slow
def test_an_idle_daemon_uses_less_than_a_hundredth_of_a_core(tmp_path: Path, database: Database) -> None:
    daemon = Daemon(tmp_path, database.url, RESCAN_SECONDS=5).start()
    daemon.drop("vehicles_status_1.json", one_status(1))
    daemon.until_empty()
    time.sleep(2)  # the workers' start is not meant
    before = cpu_seconds(daemon)
    time.sleep(20)
    used = cpu_seconds(daemon) - before
    daemon.stop()
    sys.stdout.write(f"idle: {used / 20:.2%} of a core\n")
    assert used < 0.2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_100_000_waiting_files_do_not_delay_a_new_one(tmp_path: Path, database: Database) -> None:
    daemon = Daemon(tmp_path, database.url, RESCAN_SECONDS=5, SETTLE_SECONDS=80_000)
    daemon.incoming.mkdir()
    half = one_status(1)[:-3]
    for number in range(100_000):
        (daemon.incoming / f"vehicles_status_half_{number:06}.json").write_bytes(half)
    daemon.start()
    reactions = []
    for number in range(60):
        started = time.monotonic()
        path = daemon.drop(f"vehicles_status_{number}.json", one_status(number))
        until(lambda: not path.exists(), 60)  # noqa: B023
        reactions.append(time.monotonic() - started)
        time.sleep(1)
    before = cpu_seconds(daemon)
    time.sleep(20)
    used = cpu_seconds(daemon) - before
    median, slowest = sorted(reactions)[30], max(reactions)
    sys.stdout.write(
        f"reaction: first {reactions[0]:.2f} s, median {median:.2f} s, slowest {slowest:.2f} s\n"
    )
    sys.stdout.write(f"100,000 waiting: {used / 20:.1%} of a core\n")
    daemon.stop()
    assert len(daemon.left()) == 100_000
    assert max(reactions[10:]) < 1.5
