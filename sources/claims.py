"""Claims files: renames them into a private folder, where nobody can replace them; recovers lost claims."""

import errno
import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain

from processing.errors import NotReady
from sources.rename import rename_new

#: Folder in the watch folder with one private folder for each process that disposes of files.
CLAIMS = ".claimed"

#: Beginning of a claimed file's name in the watch folder itself, and all of it with the name that it had.
_BESIDE = ".claimed-"
_CLAIMED_BESIDE = re.compile(rf"{re.escape(_BESIDE)}[0-9a-f]{{8}}-(.+)", re.DOTALL)

#: A disk without room for a folder: no inode, no block, or none for this user.
FULL = (errno.ENOSPC, errno.EDQUOT)

#: Ending of the note with the reason, beside a quarantined file.
NOTE_ENDING = ".reason.txt"

#: Longest name that leaves room for the ending of the note beside it.
MAX_NAME = 255 - len(NOTE_ENDING)

#: Called with a path that is passed over, and the error.
PassedOver = Callable[[str, OSError], None]


def _ignore(path: str, error: OSError) -> None: ...


class Claims:
    """Files of one folder that this process has claimed, in a private folder that it keeps locked.

    A full disk may have no room for the private folder, and is emptied only by disposing of files. Then a
    file is claimed under a name that nobody knows in the watch folder itself, and its own lock keeps it so.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._private: tuple[str, int] | None = None
        self._locks: dict[str, int] = {}  # of what is kept beside the files
        with suppress(OSError):  # take() tries again, and says why
            self._private = _private_folder(folder)

    @contextmanager
    def take(self, name: str) -> Iterator[str]:
        """Claims what has the name for the block, which gets its path; moves it back if the block fails.

        Raises NotReady in place of an OSError: a file that can't be moved stays, and is tried again.
        """
        try:
            taken = self._take(name)
            try:
                yield taken
            except BaseException:
                with suppress(FileNotFoundError):  # the first error is the reason, not its consequence
                    move(taken, self._folder, name)
                raise
        except FileNotFoundError:
            raise NotReady("its name is gone") from None
        except OSError as error:
            raise NotReady(f"it can't be moved: {os.strerror(error.errno or errno.EIO)}") from None

    def is_beside(self, claimed: str) -> bool:
        """Returns whether a claimed file is in the watch folder itself, for want of room."""
        return os.path.dirname(claimed) == self._folder

    def keep(self, claimed: str, fd: int) -> None:
        """Keeps a file claimed whose descriptor is about to be closed, until release(); raises OSError."""
        if self.is_beside(claimed):
            self._locks[claimed] = os.dup(fd)

    def release(self, claimed: str) -> None:
        """Ends what keep() began."""
        if claimed in self._locks:
            os.close(self._locks.pop(claimed))

    def close(self) -> None:
        """Leaves no private folder behind; what is still claimed is put back."""
        for claimed in list(self._locks):
            self.release(claimed)
        if self._private is not None:
            self._unlock()
        recover_claims(self._folder)

    def _take(self, name: str) -> str:
        path = os.path.join(self._folder, name)
        try:
            if self._private is not None and not os.path.isdir(self._private[0]):
                self._unlock()  # else what was unmounted would be in use for ever
            if self._private is None:
                self._private = _private_folder(self._folder)
            taken = os.path.join(self._private[0], name)
            os.rename(path, taken)
        except OSError as error:
            if error.errno not in FULL:
                raise
            taken = os.path.join(self._folder, f"{_BESIDE}{secrets.token_hex(4)}-{name}")
            os.rename(path, taken)
        return taken

    def _unlock(self) -> None:
        assert self._private is not None
        os.close(self._private[1])
        self._private = None


def recover_claims(folder: str, passed_over: PassedOver = _ignore) -> list[str]:
    """Puts back the files that a killed process had claimed; returns their paths.

    Passes over a file that can't be put back, and all that is no private folder of ours.
    """
    names = _recover_beside(folder, passed_over)
    claims = os.path.join(folder, CLAIMS)
    with _passing_over(claims, passed_over):
        for entry in os.listdir(claims):
            path = os.path.join(claims, entry)
            with _passing_over(path, passed_over):
                names += _recover(path, folder, passed_over)
    return names


@contextmanager
def _passing_over(path: str, passed_over: PassedOver) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        pass  # another process was faster
    except OSError as error:
        passed_over(path, error)


def _recover(claims: str, folder: str, passed_over: PassedOver) -> list[str]:
    lock = os.open(claims, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    names: list[str] = []
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in os.listdir(claims):
            path = os.path.join(claims, name)
            with _passing_over(path, passed_over):
                names.append(move(path, folder, name))
        with suppress(OSError):  # passed_over() has had what stays in it
            os.rmdir(claims)
    except BlockingIOError:
        pass  # its process is alive
    finally:
        os.close(lock)
    return names


def _recover_beside(folder: str, passed_over: PassedOver) -> list[str]:
    names: list[str] = []
    with suppress(OSError):  # whoever lists the folder next meets it again
        for entry in os.listdir(folder):
            if claimed := _CLAIMED_BESIDE.fullmatch(entry):
                path = os.path.join(folder, entry)
                with _passing_over(path, passed_over), _locked(path):
                    names.append(move(path, folder, claimed[1]))
    return names


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Locks a file for the block; raises FileNotFoundError if a living process has it locked."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileNotFoundError from None
        except OSError:
            pass  # not every network file system can lock
        yield
    finally:
        os.close(fd)


def _private_folder(folder: str) -> tuple[str, int]:
    """Makes a private folder; returns its path and a descriptor that locks it until the process ends."""
    while True:
        claims = os.path.join(folder, CLAIMS, secrets.token_hex(8))
        with suppress(FileExistsError):
            _make_folder(os.path.dirname(claims), folder)
        _make_folder(claims, folder)
        # A recovering process may remove the folder before it is locked: then another one is made.
        with suppress(FileNotFoundError):
            lock = os.open(claims, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                os.stat(claims)
                return claims, lock
            except BaseException:
                os.close(lock)
                raise


def _make_folder(path: str, watched: str) -> None:
    """Makes a folder of the watch folder's owner: one of root's would lock out a service of another user."""
    os.mkdir(path, mode=0o700)
    if os.geteuid() == 0:
        owner = os.stat(watched)
        with suppress(OSError):  # not on every network file system may root do so
            os.chown(path, owner.st_uid, owner.st_gid)


def move(path: str, folder: str, name: str) -> str:
    """Renames into a folder without ever replacing what is there; returns the new path."""
    for candidate in chain([name], names_like(name)):
        target = os.path.join(folder, candidate)
        with suppress(FileExistsError):
            rename_new(path, target)
            return target
    raise AssertionError("names never run out")


def names_like(name: str) -> Iterator[str]:
    """Random names like this one, no longer than a file system takes with the ending of a note."""
    place = name.lower().rfind(".json")
    stem, ending = (name[:place], name[place:]) if place >= 0 else ("", name)
    while True:
        suffix = f"-{secrets.token_hex(4)}{ending}"
        room = MAX_NAME - len(os.fsencode(suffix))
        yield os.fsdecode(os.fsencode(stem)[:room]) + suffix if room > 0 else secrets.token_hex(8) + ".json"
