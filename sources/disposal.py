"""Ends the life of a file: deletes, archives or sets it aside, and never another file in its place."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from msgspec import Struct
from msgspec.structs import replace

from processing.errors import NotReady
from sources.claims import MAX_NAME, NOTE_ENDING, move, names_like, private_folder, recover_claims
from sources.local_file import FileIdentity, Source
from sources.policy import QUIET_SECONDS, OnLoaded


class _Kept(Struct, frozen=True):
    """A claimed file whose rows are committed, until nobody can be writing it any more."""

    path: str
    name: str
    identity: FileIdentity
    due: float


class FileDisposer:
    """Settles the files of one folder.

    A file is first claimed, that is renamed into a private folder: no one can then replace it under
    its name, and what was claimed can be compared with what was read. Where nobody can tell whether a
    program still has it open, it is kept there for the quiet time: what is written to it meanwhile makes
    it new work.
    """

    def __init__(
        self,
        folder: str,
        failed: str,
        archive: str,
        on_loaded: OnLoaded,
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        self._folder = folder
        self._failed = failed
        self._archive = archive
        self._on_loaded = on_loaded
        self._quiet_seconds = quiet_seconds
        self._private: tuple[str, int] | None = None
        self._kept: dict[str, _Kept] = {}  # by name, the first due first

    def loaded(self, source: Source) -> None:
        """Deletes or archives a file whose rows are committed, or keeps it for sweep().

        Raises NotReady if it has changed since it was read, or can't be moved: then it stays.
        """
        with self._claim(source) as claimed:
            if source.hides_writers:
                self._keep(claimed, source)
            else:
                self._remove(claimed, source.name)

    def sweep(self) -> float | None:
        """Removes what was kept and has been quiet, puts back what has not; seconds until there is more."""
        now = time.monotonic()
        for kept in [kept for kept in self._kept.values() if kept.due <= now]:
            del self._kept[kept.name]
            try:
                self._end(kept)
            except FileNotFoundError:
                continue  # its folder is away: what was claimed there is put back when it returns
            except OSError:
                self._kept[kept.name] = replace(kept, due=now + self._quiet_seconds)
        return next((max(0.0, kept.due - now) for kept in self._kept.values()), None)

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
        """Waits for what is kept to have been quiet, once, and leaves no private folder behind."""
        if self._kept:
            last = max(kept.due for kept in self._kept.values())
            time.sleep(max(0.0, last - time.monotonic()))
            self.sweep()
        if self._private is not None:
            self._unlock()
            recover_claims(self._folder)

    def _keep(self, claimed: str, source: Source) -> None:
        identity = _look_anew(claimed)
        if not identity.same_content_as(source.identity):
            raise NotReady("it changed while it was claimed")
        due = time.monotonic() + self._quiet_seconds
        self._kept[source.name] = _Kept(claimed, source.name, identity, due)

    def _end(self, kept: _Kept) -> None:
        if _look_anew(kept.path) == kept.identity:
            self._remove(kept.path, kept.name)
        else:
            move(kept.path, self._folder, kept.name)

    def _remove(self, claimed: str, name: str) -> None:
        if self._folder == self._failed:
            _remove_note(os.path.join(self._folder, name))
        if self._on_loaded is OnLoaded.ARCHIVE:
            move(claimed, self._archive, name)
        else:
            os.unlink(claimed)

    def _set_aside(self, path: str, name: str, reason: str) -> str:
        os.makedirs(self._failed, exist_ok=True)
        fits = len(os.fsencode(name)) <= MAX_NAME
        target = move(path, self._failed, name if fits else next(names_like(name)))
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
        if name in self._kept:  # it would be replaced
            raise NotReady("one of its name is not removed yet")
        with _not_ready():
            taken = os.path.join(self._claims(), name)
            os.rename(os.path.join(self._folder, name), taken)
            try:
                yield taken
            except BaseException:
                with suppress(FileNotFoundError):  # what went wrong is the reason, not what came of it
                    move(taken, self._folder, name)
                raise

    def _claims(self) -> str:
        """The private folder, a new one if the old one is away."""
        if self._private is not None and not os.path.isdir(self._private[0]):
            self._unlock()  # else what was unmounted would be in use for ever
        if self._private is None:
            self._private = private_folder(self._folder)
        return self._private[0]

    def _unlock(self) -> None:
        assert self._private is not None
        os.close(self._private[1])
        self._private = None


class NoDisposal:
    """Settles nothing: every file stays as it is and where it is."""

    def loaded(self, source: Source) -> None: ...

    def failed(self, source: Source, reason: str) -> str:
        return source.path

    def failed_unread(self, name: str, reason: str) -> str:
        return name

    def sweep(self) -> None: ...

    def close(self) -> None: ...


def _check_same(claimed: str, source: Source) -> None:
    found = FileIdentity.of(os.stat(claimed, follow_symlinks=False))
    if not found.same_content_as(source.identity):
        raise NotReady("another file took its name")
    if source.has_writer():
        raise NotReady("a program has it open for writing")


def _look_anew(path: str) -> FileIdentity:
    """Opened for it: that is when a network file system asks its server again."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return FileIdentity.of(os.fstat(fd))
    finally:
        os.close(fd)


def _write_note(target: str, reason: str) -> None:
    """The reason, beside the file: what the ledger says, for who has only the folder."""
    with open(target + NOTE_ENDING, "w", encoding="utf-8", errors="backslashreplace") as file:
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
        os.unlink(target + NOTE_ENDING)


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
