"""What the tests share: servers, the daemon as a process, documents to drop, waiting with a deadline."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg2
from msgspec import json

from db.connection import Database
from db.embedded.server import find_binaries
from service import marker

ROOT = Path(__file__).parent.parent
VEHICLE = "ebab5f787798416fb2b8afc1340d7a4e"


def until(condition: Callable[[], Any], seconds: float = 20.0, what: str = "") -> Any:
    """The first true answer; fails if there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.01)


def detections(*events: dict[str, Any]) -> bytes:
    return json.encode({"objects_detection_events": list(events)})


def event(second: int = 0, *counted: tuple[str, int], vehicle: str = VEHICLE, **more: Any) -> dict[str, Any]:
    """An event at that second of an hour, by default of three pedestrians and two cars."""
    return {
        "vehicle_id": vehicle,
        "detection_time": f"2022-06-05T21:{second // 60:02}:{second % 60:02}.546Z",
        "detections": [
            {"object_type": kind, "object_value": value}
            for kind, value in counted or (("pedestrians", 3), ("cars", 2))
        ],
        **more,
    }


def statuses(*reports: dict[str, Any]) -> bytes:
    return json.encode({"vehicle_status": list(reports)})


def report(second: int = 0, status: str = "driving", vehicle: str = VEHICLE, **more: Any) -> dict[str, Any]:
    time_ = f"2022-05-05T22:{second // 60:02}:{second % 60:02}.546Z"
    return {"vehicle_id": vehicle, "report_time": time_, "status": status, **more}


def drop(folder: Path, name: str, content: bytes) -> Path:
    """A file that appears whole: written under another name, then renamed."""
    hidden = folder / f".{name[:200]}.tmp"
    hidden.write_bytes(content)
    return hidden.rename(folder / name)


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    """A PostgreSQL server of the tests' own, reached over TCP with a password."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.password = secrets.token_hex(8)
        self.binaries = _debian_binaries() or find_binaries()
        self.process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        password = self.folder / "password"
        password.write_text(self.password)
        password.chmod(0o644)
        data = self.folder / "data"
        data.mkdir()
        if os.geteuid() == 0:
            shutil.chown(data, "nobody")
        options = ["-A", "scram-sha-256", "--pwfile", str(password), "-E", "UTF8", "--locale=C", "--no-sync"]
        command = [str(self.binaries / "initdb"), "-D", str(data), "-U", "tester", *options]
        subprocess.run(command, check=True, capture_output=True, **_unprivileged())

    def start(self, *settings: str) -> None:
        chosen = ["listen_addresses=127.0.0.1", f"port={self.port}", "unix_socket_directories="]
        chosen.append("max_locks_per_transaction=128")  # enough for 1,500 days: else each daemon warns
        options = [word for setting in (*chosen, *settings) for word in ("-c", setting)]
        command = [str(self.binaries / "postgres"), "-D", str(self.folder / "data"), *options]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, **_unprivileged())
        until(self.answers, 30, "the server answers")

    def answers(self) -> bool:
        try:
            psycopg2.connect(self.url()).close()
        except psycopg2.OperationalError:
            return False
        return True

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast; SIGQUIT: immediate; SIGKILL: as if the power went."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None
            until(lambda: not self.answers(), 10, "the server is gone")

    def url(self, name: str = "postgres", user: str = "tester", password: str | None = None) -> str:
        return f"postgresql://{user}:{password or self.password}@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str, name: str = "postgres") -> list[tuple[Any, ...]]:
        return query(self.url(name), statement)

    @contextmanager
    def database(self) -> Iterator[Database]:
        """An empty database of a test's own."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield Database(self.url(name))
        finally:
            with suppress(psycopg2.OperationalError):
                self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextmanager
def running_server(*settings: str) -> Iterator[Server]:
    """Yields a server in a temporary folder, the parent of its own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = Server(Path(folder) / "server")
        server.create()
        server.start(*settings)
        try:
            yield server
        finally:
            server.stop()


def query(url: str, statement: str, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
    """The rows of one statement, in a connection and a transaction of its own."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SET timezone = 'UTC'")
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """The children that load, whichever thread has started them."""
    return [child for child in process.children() if is_worker(child)]


def is_worker(process: psutil.Process) -> bool:
    try:
        return any("spawn_main" in word for word in process.cmdline())
    except psutil.NoSuchProcess:  # it has ended meanwhile
        return False


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Stops processes with all of their children, as if their machine stood still."""
    stopped: list[psutil.Process] = []
    for pid in pids:
        main = psutil.Process(pid)
        main.suspend()  # first, so that it starts no other
        stopped.append(main)
        with suppress(psutil.Error):
            stopped += main.children(recursive=True)
    for process in stopped:
        with suppress(psutil.Error):
            process.suspend()
    try:
        yield
    finally:
        for process in reversed(stopped):
            with suppress(psutil.Error):
                process.resume()


class Daemon:
    """python main.py as its user starts it, in a folder of its own."""

    program = ROOT / "main.py"
    #: What starts it, if not the tests themselves.
    prefix: Sequence[str] = ()

    def __init__(self, folder: Path, url: str | None, **settings: object) -> None:
        self.folder = folder
        self.incoming = folder / "incoming"
        self.failed = self.incoming / "failed"
        self.url = url
        self._log = folder / "log"
        self._settings = {"RESCAN_SECONDS": 1, "SETTLE_SECONDS": 2, **settings}
        self.process: subprocess.Popen[bytes] | None = None

    def set(self, **settings: object) -> None:
        """Changes settings of what is started from now on."""
        self._settings.update(settings)

    def unset(self, *names: str) -> None:
        """Leaves settings away from now on."""
        for name in names:
            del self._settings[name]

    def environment(self) -> dict[str, str]:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("DB_", "DATABASE"))
        }
        chosen = {name: str(value) for name, value in self._settings.items()}
        return {**clean, **({"DATABASE_URL": self.url} if self.url else {}), **chosen}

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *arguments: str, wait: bool = True) -> "Daemon":
        self.folder.mkdir(exist_ok=True)
        self._hide_env_file()
        before = self.log().count(" watching ")
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, str(self.program), *arguments],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            until(lambda: self.log().count(" watching ") > before, 90, "the daemon watches")
        return self

    def _hide_env_file(self) -> None:
        """A developer's .env beside main.py is not read if there is one here."""
        (self.folder / ".env").touch()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One of the other commands, to its end."""
        self._hide_env_file()
        return subprocess.run(
            [sys.executable, str(ROOT / "main.py"), *arguments],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit code."""
        assert self.process is not None
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(number)
        return process.wait(60)

    def wait(self, seconds: float = 60) -> int:
        """The exit code of a daemon that ends by itself."""
        assert self.process is not None
        return self.process.wait(seconds)

    def workers(self) -> list[psutil.Process]:
        """Its processes that load, not multiprocessing's own tracker."""
        assert self.process is not None
        return workers_of(psutil.Process(self.process.pid))

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def drop(self, name: str, content: bytes) -> Path:
        self.incoming.mkdir(exist_ok=True)
        return drop(self.incoming, name, content)

    def left(self) -> list[str]:
        """The names still in the watch folder, its own folders aside."""
        return sorted(
            entry.name
            for entry in os.scandir(self.incoming)
            if not entry.is_dir(follow_symlinks=False) and not entry.name.startswith(marker.NAME)
        )

    def until_empty(self, seconds: float = 30.0) -> None:
        until(lambda: not self.left(), seconds, f"the folder is empty; log:\n{self.log()[-3000:]}")

    def rows(self, statement: str, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        assert self.url is not None
        return query(self.url, statement, values)


DaemonT = TypeVar("DaemonT", bound=Daemon)


@contextmanager
def stopping(daemon: DaemonT) -> Iterator[DaemonT]:
    """Yields a daemon, started or not; stops it in the end if it was started and nobody has."""
    try:
        yield daemon
    finally:
        if daemon.process is not None:
            daemon.stop()


class Unprivileged(Daemon):
    """Of root's files it is the owner; to those of others it has no more right than another user."""

    prefix = ("setpriv", "--bounding-set=-lease,-dac_override,-dac_read_search", "--inh-caps=-all")


def _debian_binaries() -> Path | None:
    """Debian's server, the newest; CI must have one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert found or "CI" not in os.environ, "CI tests against Debian's PostgreSQL: apt-get install postgresql"
    return found[-1] if found else None


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    root = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    return {"cwd": "/", **(root if os.geteuid() == 0 else {})}
