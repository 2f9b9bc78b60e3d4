"""Claims files: renames them into a private folder, where nobody can replace them; recovers lost claims."""

import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain

from processing.errors import NotReady
from sources.rename import rename_new

#: Folder in the watch folder with one private folder for each process that disposes of files.
CLAIMS = ".claimed"

#: Ending of the note with the reason, beside a quarantined file.
NOTE_ENDING = ".reason.txt"

#: Longest name that leaves room for the ending of the note beside it.
MAX_NAME = 255 - len(NOTE_ENDING)

#: Called with a path that is passed over, and the error.
PassedOver = Callable[[str, OSError], None]


def _ignore(path: str, error: OSError) -> None: ...


class Claims:
    """Files of one folder that this process has claimed, in a private folder that it keeps locked."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._private: tuple[str, int] | None = None

    @contextmanager
    def take(self, name: str) -> Iterator[str]:
        """Claims what has the name for the block, which gets its path; moves it back if the block fails.

        Raises NotReady in place of an OSError: a file that can't be moved stays, and is tried again.
        """
        try:
            if self._private is not None and not os.path.isdir(self._private[0]):
                self._unlock()  # else what was unmounted would be in use for ever
            if self._private is None:
                self._private = _private_folder(self._folder)
            taken = os.path.join(self._private[0], name)
            os.rename(os.path.join(self._folder, name), taken)
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

    def close(self) -> None:
        """Leaves no private folder behind; what is still in it is put back."""
        if self._private is not None:
            self._unlock()
            recover_claims(self._folder)

    def _unlock(self) -> None:
        assert self._private is not None
        os.close(self._private[1])
        self._private = None


def recover_claims(folder: str, passed_over: PassedOver = _ignore) -> list[str]:
    """Puts back the files that a killed process had claimed; returns their paths.

    Passes over a file that can't be put back, and all that is no private folder of ours.
    """
    names: list[str] = []
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


def _private_folder(folder: str) -> tuple[str, int]:
    """Makes a private folder; returns its path and a descriptor that locks it until the process ends."""
    while True:
        claims = os.path.join(folder, CLAIMS, secrets.token_hex(8))
        os.makedirs(claims, mode=0o700)
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
    stem, dot, ending = name.rpartition(".json")
    while True:
        suffix = f"-{secrets.token_hex(4)}{dot}{ending}"
        room = MAX_NAME - len(os.fsencode(suffix))
        yield os.fsdecode(os.fsencode(stem)[:room]) + suffix if room > 0 else secrets.token_hex(8) + ".json"
