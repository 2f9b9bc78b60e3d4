"""The port to the place where files arrive; sources/ implements it."""

import io
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self, TypeVar

from msgspec import Struct

#: Bytes read at a time; larger chunks parse no faster.
CHUNK_BYTES = 64 * 1024

#: Largest text of a file that shares a transaction with others: its parsed records are held in memory.
MAX_SHARED_BYTES = 2 * 1024 * 1024


class Identity(Protocol):
    """One state of one file, which only its source understands; equal as long as nothing has changed.

    It must be picklable: it travels between the daemon and its workers.
    """

    @property
    def size(self) -> int:
        """Size in bytes, as dropped."""

    def same_content_as(self, other: Self) -> bool:
        """Returns whether at most the file's place has changed, not the file."""


class Origin(Struct, frozen=True):
    """The address of a file that came from elsewhere than a folder, and which version of it was read."""

    address: str
    version: str


class SourceFile(Protocol):
    """A file that is open for reading. Each method may raise NotReady: the file has to wait."""

    @property
    def name(self) -> str:
        """Name by which the ledger knows it; nearly always that by which it was opened."""

    @property
    def identity(self) -> Identity:
        """Identity when it was opened."""

    @property
    def arrived_at(self) -> float | None:
        """Time of its arrival, in seconds since the epoch; None if its source can't know."""

    #: Digest by which the ledger knows it; empty until digest() or whoever knows it already has set it.
    sha256: bytes

    @property
    def position(self) -> int:
        """Bytes as dropped that were read, from the beginning; it starts anew with each open_bytes()."""

    @property
    def hides_writers(self) -> str:
        """Reason why nobody can know whether it is being written, if so: then it must be quiet for a time."""

    @property
    def origin(self) -> Origin | None:
        """Address of the file, if it is more than its name."""

    @property
    def may_grow(self) -> bool:
        """Returns whether one that ends in the middle may still be completed in its place."""

    def digest(self) -> None:
        """Reads the whole file and sets sha256."""

    def open_bytes(self) -> "io.BufferedReader[Any]":
        """Opens the bytes as dropped, from the beginning, as often as asked."""

    def check_unchanged(self) -> None:
        """Raises NotReady if anyone has written to the file, or may be about to."""

    def identity_if_moved(self) -> Identity:
        """Returns the identity after a disposal that failed: it may have moved the file out and back.

        If more than that has changed, it is the identity when the file was opened.
        """

    def beat(self) -> None:
        """Reports progress to whoever watches for hangs."""


FileT = TypeVar("FileT", bound=SourceFile)


class Source(Protocol[FileT]):
    """Opens files by name and disposes of them; it disposes of files only that it has opened itself."""

    def open(self, name: str) -> AbstractContextManager[FileT]:
        """Opens a file for as long as the block lasts.

        Raises Gone (no such file), NotReady (somebody is busy with it, or it can't be read now) or BadFile
        (it is nothing that could be read).
        """

    def complete(self, file: FileT) -> None:
        """Disposes of a file whose rows are committed, soon if not at once.

        Raises NotReady if it has changed since it was read, or can't be removed: then it stays.
        """

    def quarantine(self, file: FileT, reason: str) -> str:
        """Puts a bad file aside, with the reason; returns where it is. Raises NotReady as complete() does."""

    def quarantine_unopened(self, name: str, reason: str) -> str:
        """Puts aside what could not be opened because it is no file that could be read."""

    def tidy(self) -> float | None:
        """Finishes disposals that had to wait for a quiet time; returns the seconds until the next is due.

        A worker calls it between its batches.
        """

    def close(self) -> None:
        """Waits, once, for the disposals that are still due, and releases what the source holds."""
