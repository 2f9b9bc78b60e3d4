"""The process that runs the embedded PostgreSQL for its users; the server module starts it as a script.

Three locks say what lives; the kernel releases them whatever kills their holders: users.lock is held
(shared) by each user, keeper.lock by the keeper, server.lock by the keeper and all processes of the server.
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
from collections.abc import Callable
from contextlib import suppress
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
    "max_locks_per_transaction": "1024",  # 32 MB; twenty sessions may each be at work on all partitions
    "shared_buffers": "256MB",
    "wal_buffers": "64MB",  # two workers fill the default faster than it is written
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "pglz",  # these binaries are built without lz4
    "log_checkpoints": "off",
    "log_min_error_statement": "panic",  # else each refused batch puts all its rows into the log
}
ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}  # the user's own may hold secrets
PORTS = range(20_000, 32_000)  # below those that systems give to outgoing connections
FAST_SHUTDOWN_SECONDS = 8.0
BUSY = 75  # exit status: another keeper is at work
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
    """Who runs the server's programs: this user, another one, or this one behind a prefix such as unshare."""

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

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Self:
        told = json.loads(text)
        return cls(Path(told["folder"]), Path(told["binaries"]), Account(**told["account"]))

    @property
    def cluster(self) -> Path:
        return self.folder / "postgres"

    def start(self) -> None:
        if not try_lock(open_lock(self.folder / "keeper.lock"), fcntl.LOCK_EX):
            sys.exit(BUSY)
        if os.fork():  # the child holds the lock too: when the starter goes on, there is a keeper
            os._exit(0)
        self._outlive_signals()
        self._keep(self._lock_server())

    def _outlive_signals(self) -> None:
        """The users decide when it stops, not a service manager that signals all processes at once."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)

    def _lock_server(self) -> int:
        """Waits until nothing of an earlier server lives, its backends included."""
        lock = open_lock(self.folder / "server.lock")
        if not try_lock(lock, fcntl.LOCK_EX):
            self._stop_orphan()
            fcntl.flock(lock, fcntl.LOCK_EX)
        return lock

    def _stop_orphan(self) -> None:
        """Its keeper was killed: Linux has told the server to stop, other systems do not."""
        if sys.platform != "linux":
            with suppress(OSError):
                os.kill(int((self.cluster / "postmaster.pid").read_text().split()[0]), signal.SIGINT)

    def _keep(self, lock: int) -> None:
        # Stale for certain; its pid may be another program's by now, then PostgreSQL would refuse to start.
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)
        if not self.cluster.exists():
            self._create_cluster(lock)
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command = self._command("postgres", "-D", self.cluster, "-p", self._choose_port(), *settings)
        server = subprocess.Popen(command, **self._options(lock))
        threading.Thread(target=self._stop_when_unused, args=(server,), daemon=True).start()
        sys.exit(server.wait())

    def _stop_when_unused(self, server: subprocess.Popen[bytes]) -> None:
        # Held until this process has ended, so that newcomers wait instead of meeting a server about to stop.
        fcntl.flock(open_lock(self.folder / "users.lock"), fcntl.LOCK_EX)
        server.send_signal(signal.SIGINT)
        time.sleep(FAST_SHUTDOWN_SECONDS)
        server.send_signal(signal.SIGQUIT)  # loses nothing, but the next start must replay the log

    def _choose_port(self) -> str:
        kept = self.folder / "port"
        port = int(kept.read_text()) if kept.exists() else random.choice(PORTS)
        while not is_free(port):
            port = random.choice(PORTS)
        write(kept, str(port))
        return str(port)

    def _create_cluster(self, lock: int) -> None:
        """Under another name, renamed when whole: a kill in the middle leaves nothing half-made."""
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

    def _run(self, lock: int, says: str, program: str, *arguments: str | Path) -> None:
        command = self._command(program, *arguments)
        done = subprocess.run(command, input=says.encode(), stdout=subprocess.DEVNULL, **self._options(lock))
        if done.returncode:
            sys.exit(1)  # without words: the last line of the log is the program's own reason

    def _command(self, program: str, *arguments: str | Path) -> list[str]:
        return [*self.account.prefix, str(self.binaries / program), *map(str, arguments)]

    def _options(self, lock: int) -> dict[str, Any]:
        """With the lock, so that it is free only when the last process of the server has ended."""
        options = {"env": ENVIRONMENT, "pass_fds": [lock], **self.account.identity()}
        return options | ({"preexec_fn": end_with_parent()} if sys.platform == "linux" else {})


def end_with_parent() -> Callable[[], None]:
    """For the child to call before exec: when its parent dies the kernel sends it SIGINT, a fast shutdown."""
    libc, parent = ctypes.CDLL(None), os.getpid()

    def ask_kernel() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # it died before the kernel was asked
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
    """Whole or not at all, and only for its owner's eyes."""
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
