"""Private folders of claimed files, one for each process that settles files, and what dead ones have left."""

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sources.rename import rename_new

#: Folder in the watch folder with one private folder for each process that settles files.
CLAIMS = ".claimed"

#: Of the note with the reason, beside a file that is set aside.
NOTE_ENDING = ".reason.txt"

#: Longest name that leaves room for the ending of the note beside it.
MAX_NAME = 255 - len(NOTE_ENDING)

#: Is told what is passed over, and why.
PassedOver = Callable[[str, OSError], None]


def _untold(path: str, error: OSError) -> None: ...


def recover_claims(folder: str, passed_over: PassedOver = _untold) -> list[str]:
    """Puts back what a killed process had claimed; gives back the names.

    What can't be put back, and what is no private folder of ours, keeps nothing else from it.
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
        with suppress(OSError):  # of what stays in it was told
            os.rmdir(claims)
    except BlockingIOError:
        pass  # its process is alive
    finally:
        os.close(lock)
    return names


def private_folder(folder: str) -> tuple[str, int]:
    """A new private folder, locked for as long as this process lives."""
    while True:
        claims = os.path.join(folder, CLAIMS, secrets.token_hex(8))
        os.makedirs(claims, mode=0o700)
        # A recovering process may remove the folder before it is locked: then it takes another one.
        with suppress(FileNotFoundError):
            return claims, _locked(claims)


def _locked(claims: str) -> int:
    """Its descriptor; raises FileNotFoundError if it is gone."""
    lock = os.open(claims, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.stat(claims)
        return lock
    except BaseException:
        os.close(lock)
        raise


def move(path: str, folder: str, name: str) -> str:
    """Renames into a folder without ever replacing what is there; gives back the new path."""
    for candidate in _candidates(name):
        target = os.path.join(folder, candidate)
        with suppress(FileExistsError):
            rename_new(path, target)
            return target
    raise AssertionError("names never run out")


def _candidates(name: str) -> Iterator[str]:
    """The name itself, then names like it."""
    yield name
    yield from names_like(name)


def names_like(name: str) -> Iterator[str]:
    """Never the same twice, and no longer than a file system takes with the ending of a note."""
    stem, dot, ending = name.rpartition(".json")
    while True:
        suffix = f"-{secrets.token_hex(4)}{dot}{ending}"
        room = MAX_NAME - len(os.fsencode(suffix))
        yield os.fsdecode(os.fsencode(stem)[:room]) + suffix if room > 0 else secrets.token_hex(8) + ".json"
