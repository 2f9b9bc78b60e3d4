"""The process that runs the embedded PostgreSQL for its users; the server module starts it as a script.

Three locks show which processes live; the kernel releases them however their holders end. Each user holds
users.lock (shared), the keeper keeper.lock, the keeper and all processes of the server server.lock.
"""

import ctypes
import fcntl
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "cluster_name": "mobileye",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "50",
    "max_locks_per_transaction": "1024",  # 32 MB; twenty sessions may each use all partitions
    "shared_buffers": "256MB",
    "wal_buffers": "64MB",  # two workers fill the default size faster than it is written
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "pglz",  # these binaries are built without lz4
    "log_checkpoints": "off",
    "log_min_error_statement": "panic",  # otherwise each refused batch writes all its rows to the log
}
ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}  # the user's own environment may hold secrets
PORTS = range(20_000, 32_000)  # below the ports that systems use for outgoing connections
FAST_SHUTDOWN_SECONDS = 8.0
BUSY = 75  # exit status: another keeper is running
PR_SET_PDEATHSIG = 1


def open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def try_lock(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True)
class Account:
    """The user that runs the server's programs: this one, another one, or this one in a user namespace."""

    uid: int | None = None
    gid: int | None = None
    prefix: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def give(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


@dataclass(frozen=True)
class Keeper:
    folder: Path
    binaries: Path
    account: Account
    may_create: bool = True

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        account = Account(**fields["account"])
        return cls(Path(fields["folder"]), Path(fields["binaries"]), account, fields["may_create"])

    @property
    def cluster(self) -> Path:
        return self.folder / "postgres"

    def start(self) -> None:
        if not try_lock(open_lock(self.folder / "keeper.lock"), fcntl.LOCK_EX):
            sys.exit(BUSY)
        if os.fork():  # the child holds the lock, too: when the starter continues, a keeper exists
            os._exit(0)
        self._outlive_signals()
        self._keep(self._lock_server())

    def _outlive_signals(self) -> None:
        """Ignores signals, such as a service manager's to all processes: the users decide when it stops."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)

    def _lock_server(self) -> int:
        """Waits until all processes of an earlier server have ended, its backends included."""
        lock = open_lock(self.folder / "server.lock")
        if not try_lock(lock, fcntl.LOCK_EX):
            self._stop_orphan()
            fcntl.flock(lock, fcntl.LOCK_EX)
        return lock

    def _stop_orphan(self) -> None:
        """Stops a server whose keeper was killed; on Linux the kernel has sent the signal already."""
        if sys.platform != "linux":
            with suppress(OSError):
                os.kill(int((self.cluster / "postmaster.pid").read_text().split()[0]), signal.SIGINT)

    def _keep(self, lock: int) -> None:
        if process := server_of(self.cluster):
            sys.exit(f"FATAL:  process {process} is a server of this cluster that somebody else has started")
        # The file is stale: the lock is ours. Its pid may belong to another program by now, and PostgreSQL
        # would then refuse to start.
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)
        if not self.cluster.exists():
            if not self.may_create:
                sys.exit(f"FATAL:  {self.cluster} is gone")
            self._create_cluster(lock)
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command = self._command("postgres", "-D", self.cluster, "-p", self._choose_port(), *settings)
        with explained(command):
            server = subprocess.Popen(command, **self._options(lock))
        threading.Thread(target=self._stop_when_unused, args=(server,), daemon=True).start()
        sys.exit(server.wait())

    def _stop_when_unused(self, server: subprocess.Popen[bytes]) -> None:
        # Held until this process ends, so that new users wait instead of connecting to a server that stops.
        fcntl.flock(open_lock(self.folder / "users.lock"), fcntl.LOCK_EX)
        server.send_signal(signal.SIGINT)
        time.sleep(FAST_SHUTDOWN_SECONDS)
        server.send_signal(signal.SIGQUIT)  # loses nothing, but the next start must replay the WAL

    def _choose_port(self) -> str:
        kept = self.folder / "port"
        port = int(kept.read_text()) if kept.exists() else random.choice(PORTS)
        while not is_free(port):
            port = random.choice(PORTS)
        write(kept, str(port))
        return str(port)

    def _create_cluster(self, lock: int) -> None:
        """Creates the cluster under another name and renames it when complete, in case of a kill."""
        new, secret = self.folder / "postgres.new", self.folder / "password.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        write(secret, self._password())
        self.account.give(new)
        self.account.give(secret)
        self._run(lock, "", "initdb", "-D", new, "-U", "mobileye", "-A", "scram-sha-256",
                  f"--pwfile={secret}", "-E", "UTF8", "--locale=C", "--no-clean")  # fmt: skip
        secret.unlink()
        self._run(lock, "CREATE DATABASE mobileye;\n",
                  "postgres", "--single", "-D", new, "-c", "exit_on_error=on", "postgres")  # fmt: skip
        new.rename(self.cluster)
        sync(self.folder)

    def _password(self) -> str:
        kept = self.folder / "password"
        if not kept.exists():
            write(kept, secrets.token_urlsafe(24))
        return kept.read_text()

    def _run(self, lock: int, text: str, program: str, *arguments: str | Path) -> None:
        command = self._command(program, *arguments)
        options = self._options(lock)
        with explained(command):
            done = subprocess.run(command, input=text.encode(), stdout=subprocess.DEVNULL, **options)
        if done.returncode:
            sys.exit(1)  # prints nothing: the program itself has written its reason

    def _command(self, program: str, *arguments: str | Path) -> list[str]:
        return [*self.account.prefix, str(self.binaries / program), *map(str, arguments)]

    def _options(self, lock: int) -> dict[str, Any]:
        """Options of subprocesses: all inherit the lock, which is free only when the last one has ended."""
        options = {"env": ENVIRONMENT, "pass_fds": [lock], **self.account.identity()}
        return options | ({"preexec_fn": end_with_parent()} if sys.platform == "linux" else {})


@contextmanager
def explained(command: list[str]) -> Iterator[None]:
    """Ends with a line like PostgreSQL's own if the program can't be run."""
    try:
        yield
    except OSError as error:
        sys.exit(f"FATAL:  can't run {command[0]}: {error.strerror}")


def server_of(cluster: Path) -> int | None:
    """Returns the process of the server that its pid file names, if it lives and works in this cluster.

    Its number may belong to another program by now, or the folder may be a copy of one in use.
    """
    try:
        process = abs(int((cluster / "postmaster.pid").read_text().split()[0]))  # negative: a single user's
    except (OSError, ValueError, IndexError):
        return None
    if program_of(process) not in ("postgres", "postmaster"):
        return None
    with suppress(OSError):  # another system, or another user's process: then it may be this cluster's
        if not os.path.samefile(f"/proc/{process}/cwd", cluster):
            return None
    return process


def program_of(process: int) -> str:
    if sys.platform == "linux":
        with suppress(OSError):
            return Path(f"/proc/{process}/comm").read_text().strip()
        return ""
    shown = subprocess.run(["ps", "-o", "comm=", "-p", str(process)], capture_output=True, text=True)
    return os.path.basename(shown.stdout.strip())


def end_with_parent() -> Callable[[], None]:
    """Returns a function to call before exec: the kernel sends SIGINT (fast shutdown) if the parent dies."""
    libc, parent = ctypes.CDLL(None), os.getpid()

    def ask_kernel() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # the parent died before the call
            os._exit(1)

    return ask_kernel


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def write(path: Path, text: str) -> None:
    """Writes a file completely or not at all, readable only for its owner."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


if __name__ == "__main__":
    Keeper.from_json(sys.argv[1]).start()
