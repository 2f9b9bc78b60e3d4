"""Ends the life of a file: deletes, archives or sets it aside, and never another file in its place."""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum

from processing.errors import NotReady
from processing.reader import Source, Stamp
from processing.rename import rename_new

#: Folder in the watch folder with one private folder for each process that settles files.
CLAIMS = ".claimed"

_NOTE_ENDING = ".reason.txt"

#: Longest name that leaves room for the ending of the note beside it.
_MAX_NAME = 255 - len(_NOTE_ENDING)


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
            if self._folder == self._failed:
                _remove_note(source.path)
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
        with self._take(name) as taken:
            if stat.S_ISREG(os.lstat(taken).st_mode):
                raise NotReady("another file took its name")
            return self._set_aside(taken, name, reason)

    def close(self) -> None:
        """Leaves no private folder behind."""
        if self._private is not None:
            self._unlock()
            recover_claims(self._folder)

    def _set_aside(self, path: str, name: str, reason: str) -> str:
        os.makedirs(self._failed, exist_ok=True)
        fits = len(os.fsencode(name)) <= _MAX_NAME
        target = _move(path, self._failed, name if fits else next(_names_like(name)))
        try:
            _write_note(target, reason)
            _sync_folder(self._failed)
            _sync_folder(self._folder)
        except OSError:
            _take_back(target, path)
            raise
        return target

    @contextmanager
    def _claim(self, source: Source) -> Iterator[str]:
        """Takes the file that was read, and no other."""
        source.check_unchanged()
        with self._take(source.name) as claimed:
            _check_same(claimed, source)
            yield claimed

    @contextmanager
    def _take(self, name: str) -> Iterator[str]:
        """Renames what has the name into the private folder, and back if something goes wrong."""
        with _not_ready():
            taken = os.path.join(self._claims(), name)
            os.rename(os.path.join(self._folder, name), taken)
            try:
                yield taken
            except BaseException:
                with suppress(FileNotFoundError):  # what went wrong is the reason, not what came of it
                    put_back(taken, self._folder, name)
                raise

    def _claims(self) -> str:
        """The private folder, a new one if the old one is away."""
        if self._private is not None and not os.path.isdir(self._private[0]):
            self._unlock()  # else what was unmounted would be in use for ever
        if self._private is None:
            self._private = _private_folder(self._folder)
        return self._private[0]

    def _unlock(self) -> None:
        assert self._private is not None
        os.close(self._private[1])
        self._private = None


class LeaveAlone:
    """Settles nothing: every file stays as it is and where it is."""

    def loaded(self, source: Source) -> None: ...

    def failed(self, source: Source, reason: str) -> str:
        return source.path

    def failed_unread(self, name: str, reason: str) -> str:
        return name


def recover_claims(folder: str) -> list[str]:
    """Puts back what a killed process had claimed; gives back the names."""
    claims = os.path.join(folder, CLAIMS)
    names: list[str] = []
    for entry in os.listdir(claims) if os.path.isdir(claims) else ():
        with suppress(FileNotFoundError):  # another process was faster
            names += _recover(os.path.join(claims, entry), folder)
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
    """The name itself, then names like it."""
    yield name
    yield from _names_like(name)


def _names_like(name: str) -> Iterator[str]:
    """Never the same twice, and no longer than a file system takes with the ending of a note."""
    stem, dot, ending = name.rpartition(".json")
    while True:
        suffix = f"-{secrets.token_hex(4)}{dot}{ending}"
        room = _MAX_NAME - len(os.fsencode(suffix))
        yield os.fsdecode(os.fsencode(stem)[:room]) + suffix if room > 0 else secrets.token_hex(8) + ".json"


def _write_note(target: str, reason: str) -> None:
    """The reason, beside the file: what the ledger says, for who has only the folder."""
    with open(target + _NOTE_ENDING, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(reason + "\n")
        file.flush()
        os.fsync(file.fileno())


def _take_back(target: str, path: str) -> None:
    """As if it had not been set aside; its note may be half-written."""
    os.rename(target, path)
    with suppress(OSError):
        _remove_note(target)


def _remove_note(target: str) -> None:
    """Before its file goes, so that a kill in between leaves the file, not the note."""
    with suppress(FileNotFoundError):
        os.unlink(target + _NOTE_ENDING)


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
