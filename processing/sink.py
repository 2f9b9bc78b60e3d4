"""What processing asks of the place where rows go; db/ answers it for PostgreSQL."""

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
    """What became of a file's records: read = inserted + duplicate + rejected."""

    read: int = 0
    inserted: int = 0
    duplicate: int = 0
    rejected: int = 0


class Transaction(Protocol):
    """Rows of one or more files and their ledger entries, all or nothing."""

    def loaded(self, digests: Sequence[bytes]) -> set[bytes]:
        """Those of the digests that the ledger has as loaded."""

    def begin_file(self, delivery: Delivery, kind: Kind) -> None:
        """The file to which the elements that follow belong."""

    def write(self, parsed: Parsed) -> None:
        """Takes one element's records and rejects; they reach the tables in batches."""

    def redelivered(self, delivery: Delivery) -> None:
        """Notes that bytes which are loaded already have come again."""

    def finish(self) -> list[Counts]:
        """Sends what is left of the rows; counts of the files in the order they began."""

    def commit(self) -> list[Counts]:
        """Finishes, and makes everything durable; the same counts.

        Raises TryAgain if another process has loaded one of the files meanwhile.
        """


class Sink(Protocol):
    """Every method raises DatabaseUnavailable or Misconfigured."""

    def transaction(self, *, is_hasty: bool = False) -> AbstractContextManager[Transaction]:
        """Rolls back unless it was committed; a hasty one soon gives up a lock that another one holds."""

    def record_failure(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        """Notes that a file can't be loaded, durably."""
