"""The port to the place where rows go; db/sink.py implements it for PostgreSQL."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from processing.records import Kind, Parsed


class Delivery(Struct, frozen=True):
    """One file as it was dropped: what the ledger says of it, besides its rows."""

    sha256: bytes | None
    name: str
    size: int
    started_at: datetime


class Counts(Struct, frozen=True):
    """Counts of a file's records: read = inserted + duplicate + rejected."""

    read: int = 0
    inserted: int = 0
    duplicate: int = 0
    rejected: int = 0


class Transaction(Protocol):
    """Rows of one or more files and their ledger entries, all or nothing."""

    def loaded(self, digests: Sequence[bytes]) -> set[bytes]:
        """Returns those of the digests that the ledger has as loaded."""

    def begin_file(self, delivery: Delivery, kind: Kind) -> None:
        """Begins the file to which the elements that follow belong; loaded() must have been asked for it."""

    def write(self, parsed: Parsed) -> None:
        """Takes one element's records and rejects; they reach the tables in batches."""

    def redelivered(self, delivery: Delivery) -> None:
        """Notes that bytes which are loaded already have come again."""

    def finish(self) -> list[Counts]:
        """Sends what is left of the rows; returns the counts of the files in the order they began.

        Calling it again has no effect: commit() does.
        """

    def commit(self) -> list[Counts]:
        """Finishes, and makes everything durable; returns the same counts.

        Raises TryAgain if another process has loaded one of the files meanwhile.
        """


class Sink(Protocol):
    """A place where rows go, which keeps a ledger of the files that it has.

    Every method raises DatabaseUnavailable or Misconfigured. tests/contracts/sink.py says what each
    implementation must do.
    """

    def transaction(self, *, is_hasty: bool = False) -> AbstractContextManager[Transaction]:
        """Rolls back unless it was committed; a hasty one soon gives up a lock that another one holds."""

    def record_failure(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        """Notes that a file can't be loaded, durably."""
