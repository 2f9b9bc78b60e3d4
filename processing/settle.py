"""Ends the life of a file: deletes, archives or sets it aside, and never another file in its place."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum

from processing.errors import NotReady
from processing.reader import Source, Stamp
from processing.rename import rename_new

#: Folder in the watch folder with one private folder for each process that settles files.
CLAIMS = ".claimed"


class OnLoaded(StrEnum):
    """What happens to a file whose rows are committed."""

    DELETE = "delete"
    ARCHIVE = "archive"


class Settler:
    """Settles the files of one folder.

    A file is first claimed, that is renamed into a private folder: no one can then replace it under
    its name, and what was claimed can be compared with what was read.
    """

    def __init__(self, folder: str, failed: str, archive: str, on_loaded: OnLoaded) -> None:
        self._folder = folder
        self._failed = failed
        self._archive = archive
        self._on_loaded = on_loaded
        self._private: tuple[str, int] | None = None

    def loaded(self, source: Source) -> None:
        """Deletes or archives a file whose rows are committed.

        Raises NotReady if it has changed since it was read, or can't be moved: then it stays.
        """
        with self._claim(source) as claimed:
            if self._on_loaded is OnLoaded.ARCHIVE:
                _move(claimed, self._archive, source.name)
            else:
                os.unlink(claimed)

    def failed(self, source: Source, reason: str) -> str:
        """Sets a bad file aside with a note of the reason beside it; gives back its path."""
        with self._claim(source) as claimed:
            os.fsync(source.fd)
            return self._set_aside(claimed, source.name, reason)

    def failed_unread(self, name: str, reason: str) -> str:
        """Sets aside what is no regular file, without ever opening it."""
        with _not_ready():
            return self._set_aside(os.path.join(self._folder, name), name, reason)

    def _set_aside(self, path: str, name: str, reason: str) -> str:
        os.makedirs(self._failed, exist_ok=True)
        target = _move(path, self._failed, name)
        _write_note(target, reason)
        _sync_folder(self._failed)
        _sync_folder(self._folder)
        return target

    @contextmanager
    def _claim(self, source: Source) -> Iterator[str]:
        """Renames the file into the private folder; puts it back if it is not the one that was read."""
        source.check_unchanged()
        with _not_ready():
            if self._private is None or not os.path.isdir(self._private[0]):
                self._private = _private_folder(self._folder)
            claimed = os.path.join(self._private[0], source.name)
            os.rename(source.path, claimed)
            try:
                _check_same(claimed, source)
                yield claimed
            except BaseException:
                put_back(claimed, self._folder, source.name)
                raise


def recover_claims(folder: str) -> list[str]:
    """Puts back what a killed process had claimed; gives back the names."""
    names: list[str] = []
    with suppress(FileNotFoundError):
        for entry in os.scandir(os.path.join(folder, CLAIMS)):
            names += _recover(entry.path, folder)
    return names


def put_back(claimed: str, folder: str, name: str) -> str:
    """Gives a claimed file its name back, or one like it if that is taken by now."""
    return _move(claimed, folder, name)


def _recover(claims: str, folder: str) -> list[str]:
    lock = os.open(claims, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        names = [put_back(os.path.join(claims, name), folder, name) for name in os.listdir(claims)]
        os.rmdir(claims)
        return names
    except BlockingIOError:
        return []  # its process is alive
    finally:
        os.close(lock)


def _private_folder(folder: str) -> tuple[str, int]:
    """A new private folder, locked for as long as this process lives."""
    while True:
        claims = os.path.join(folder, CLAIMS, secrets.token_hex(8))
        os.makedirs(claims, mode=0o700)
        # A recovering process may remove the folder before it is locked: then it takes another one.
        with suppress(FileNotFoundError):
            lock = os.open(claims, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(claims):
                return claims, lock
            os.close(lock)


def _check_same(claimed: str, source: Source) -> None:
    found = Stamp.of(os.stat(claimed, follow_symlinks=False))
    if not found.is_same_but_moved(source.stamp):
        raise NotReady("another file took its name")
    if source.has_writer():
        raise NotReady("a program has it open for writing")


def _move(path: str, folder: str, name: str) -> str:
    """Renames into a folder without ever replacing what is there; gives back the new path."""
    for candidate in _candidates(name):
        target = os.path.join(folder, candidate)
        with suppress(FileExistsError):
            rename_new(path, target)
            return target
    raise AssertionError("names never run out")


def _candidates(name: str) -> Iterator[str]:
    """The name itself, then names like it, no longer than a file system takes."""
    yield name
    stem, dot, ending = name.partition(".")
    while True:
        suffix = f"-{secrets.token_hex(4)}{dot}{ending}"
        room = 255 - len(os.fsencode(suffix))
        yield os.fsdecode(os.fsencode(stem)[:room]) + suffix if room > 0 else secrets.token_hex(8) + ".json"


def _write_note(target: str, reason: str) -> None:
    """The reason, beside the file: what the ledger says, for who has only the folder."""
    folder, name = os.path.split(target)
    note = os.path.join(folder, os.fsdecode(os.fsencode(name)[:240]) + ".reason.txt")
    with open(note, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(reason + "\n")
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _not_ready() -> Iterator[None]:
    """A file that can't be moved stays, and is tried again."""
    try:
        yield
    except FileNotFoundError:
        raise NotReady("its name is gone") from None
    except OSError as error:
        raise NotReady(f"it can't be moved: {os.strerror(error.errno or errno.EIO)}") from None
