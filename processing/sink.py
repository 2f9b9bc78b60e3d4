"""The port to where rows go: PostgreSQL in db/sink.py, memory in sinks/memory.py."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol, TypeVar

from msgspec import Struct

from processing.records import Kind, Parsed, Reason
from processing.source import Origin

T = TypeVar("T", contravariant=True)


class Delivery(Struct, frozen=True):
    """One file as it arrived: what the ledger keeps of it besides its rows.

    check_unchanged is set if the file was read to its end, and is good: a sink that can't take all of it in
    one transaction may commit it in parts, after this has returned each time.
    """

    sha256: bytes | None
    name: str
    size: int
    started_at: datetime
    origin: Origin | None = None
    check_unchanged: Callable[[], None] | None = None


class Counts(Struct, frozen=True):
    """Counts of a file's records: read = inserted + duplicate + rejected; and elements without any.

    Of the rejected records, some are in conflict, some are refused by the sink, and all others are invalid.
    """

    read: int = 0
    inserted: int = 0
    duplicate: int = 0
    rejected: int = 0
    empty: int = 0
    conflict: int = 0
    refused: int = 0

    def rejected_for(self, reason: Reason) -> int:
        match reason:
            case Reason.CONFLICT:
                return self.conflict
            case Reason.REFUSED:
                return self.refused
            case Reason.INVALID:
                return self.rejected - self.conflict - self.refused


class FirstReject(Struct, frozen=True):
    """The rejected record of a file that comes first in it: its position, JSON path and kind of reason."""

    position: int
    path: str
    reason: str


class Transaction(Protocol):
    """Rows of one or more files and their ledger entries, all or nothing."""

    def loaded(self, digests: Sequence[bytes]) -> set[bytes]:
        """Returns those of the digests that the ledger has as loaded.

        Asked once, first, for all files of the transaction; it writes nothing.
        """

    def begin_file(self, delivery: Delivery, kind: Kind) -> None:
        """Begins a file that is not loaded: the elements that follow belong to it."""

    def write(self, parsed: Parsed) -> None:
        """Takes records and rejects; a sink may send them later, many at a time."""

    def keep(self, extra: str) -> None:
        """Keeps the fields beside the array of the file that was begun last, as JSON."""

    def redelivered(self, delivery: Delivery) -> None:
        """Counts one more arrival of bytes that are loaded, by this transaction or before."""

    def finish(self) -> list[Counts]:
        """Sends the rows that are left; returns the counts of the files in the order they began.

        Called again, by commit() for one, it returns the same.
        """

    def first_rejects(self) -> list[FirstReject | None]:
        """Returns the first reject of each file, in the order they began; complete once it is finished."""

    def commit(self) -> list[Counts]:
        """Finishes, lets the participants join in, makes everything durable; returns the counts.

        Raises TryAgain if another process has loaded one of the files meanwhile, and PartsWanted if nothing
        is wrong with a file but that a transaction can't take all of it: then it has taken nothing.
        """


class Sink(Protocol):
    """A place for rows, with a ledger of the files that it has.

    Every method raises DatabaseUnavailable or Misconfigured. tests/contracts/sink.py says what each
    implementation must do.
    """

    def transaction(self, *, is_hasty: bool = False) -> AbstractContextManager[Transaction]:
        """Begins a transaction that rolls back unless committed; a hasty one soon gives up a held lock."""

    def record_failure(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        """Records durably that a file can't be loaded; bytes that are loaded stay loaded."""


class Participant(Protocol[T]):
    """Joins the transactions of a sink: what it writes is committed with the rows, or not at all.

    T is what a sink offers for this: its own class of transaction, with a cursor for PostgreSQL.
    """

    def before_commit(self, transaction: T) -> None:
        """Writes last before COMMIT; an exception rolls the whole transaction back."""
