"""Files at rest in one place, as commands look at them or load them from there: a folder, or a bucket."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

import watcher.scan
from config import Settings
from processing.batch import FileTask
from processing.errors import BadFile, Gone, Misconfigured, NotReady
from processing.source import Source
from service.kept_client import KeptClient
from service.load_one import finished
from sources.claims import recover_claims
from sources.folder import FolderSource
from sources.peek import PeekSource
from sources.policy import BucketPlace


class Found(Struct, frozen=True):
    """A file of a shelf, as the ledger knows it; its digest is None if the file can't be loaded."""

    name: str
    size: int
    sha256: bytes | None


class Shelf(Protocol):
    """A place of files: that of waiting or that of failed ones."""

    def __str__(self) -> str:
        """Returns its path or address."""

    def names(self) -> Sequence[str]:
        """Returns the names of the files in it; raises Misconfigured or SourceUnavailable."""

    def chosen(self, given: str) -> Sequence[str]:
        """Returns the names that a person means by a name, a path or an address; raises Misconfigured."""

    def known_as(self, name: str) -> str:
        """Returns the name by which the ledger knows a file."""

    def has(self, known_as: str) -> bool:
        """Returns whether a file is there that the ledger knows by this name."""

    def task(self, name: str) -> FileTask:
        """Returns the task to load a file, which had the time to be finished."""

    def peek(self) -> Source[Any]:
        """Returns a source that only looks at the files."""

    def source(self) -> Source[Any]:
        """Returns a source that disposes of them."""

    def put_back(self) -> None:
        """Puts back what was left half-way."""


class FolderShelf:
    """A folder on a disk."""

    def __init__(self, settings: Settings, folder: Path, *, may_be_missing: bool) -> None:
        """A folder that may be missing is then empty: the daemon makes it."""
        self._settings = settings
        self._folder = folder
        self._may_be_missing = may_be_missing

    def __str__(self) -> str:
        return str(self._folder)

    def names(self) -> Sequence[str]:
        if self._may_be_missing and not self._folder.exists():
            return []
        try:
            return watcher.scan.waiting(str(self._folder))
        except OSError as error:
            raise Misconfigured(f"can't list the watch folder {self._folder}: {error.strerror}") from None

    def chosen(self, given: str) -> Sequence[str]:
        path = Path(given)
        if path.parent not in (Path(), self._folder) and path.parent.resolve() != self._folder:
            raise Misconfigured(f"{path} is not in {self._folder}")
        return [path.name]

    def known_as(self, name: str) -> str:
        return name

    def has(self, known_as: str) -> bool:
        return os.path.lexists(self._folder / known_as)

    def task(self, name: str) -> FileTask:
        return finished(str(self._folder), name)

    def peek(self) -> Source[Any]:
        return PeekSource(str(self._folder))

    def source(self) -> Source[Any]:
        settings, folder = self._settings, str(self._folder)
        archive = str(settings.archive or "")
        return FolderSource(folder, str(settings.failed), archive, settings.on_loaded, settings.quiet_seconds)

    def put_back(self) -> None:
        if self._folder.exists():
            recover_claims(str(self._folder))


def waiting_shelf(settings: Settings, client: KeptClient) -> Shelf:
    """Returns the place where files arrive."""
    if settings.bucket is None:
        return FolderShelf(settings, settings.folder, may_be_missing=not settings.watches)
    from service.bucket_shelf import BucketShelf

    return BucketShelf.of(settings, settings.bucket, client)


def failed_shelf(settings: Settings, client: KeptClient) -> Shelf:
    """Returns the place of failed files."""
    if settings.bucket is None:
        return FolderShelf(settings, settings.failed, may_be_missing=True)
    from service.bucket_shelf import BucketShelf

    at = BucketPlace(settings.bucket.bucket, settings.bucket_ends.failed)
    return BucketShelf.of(settings, at, client)


def look(shelf: Shelf, name: str, max_bytes: int) -> Found | None:
    """Returns a file with its digest; None if it is gone, or if somebody is writing or loading it."""
    known_as = shelf.known_as(name)
    try:
        with shelf.peek().open(name) as file:
            if file.identity.size <= max_bytes:
                file.digest()
            return Found(known_as, file.identity.size, file.sha256 or None)
    except BadFile:
        return Found(known_as, 0, None)
    except (NotReady, Gone):
        return None
