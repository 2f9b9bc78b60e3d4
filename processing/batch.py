"""Tasks that go to a worker as a batch, and the outcomes that come back."""

from typing import Literal

from msgspec import Struct

from processing.sink import Counts, FirstReject
from processing.source import Identity

State = Literal["loaded", "duplicate", "failed", "waiting", "contended", "retry_alone", "gone"]


class Undisposed(Struct, frozen=True):
    """A file that the ledger has already, as loaded or failed, but whose removal failed.

    As long as its identity is the same, it is disposed of without being read again. sha256 is its digest,
    if it was read at all.
    """

    identity: Identity
    failure: str = ""
    sha256: bytes = b""


class FileTask(Struct, frozen=True):
    """A file to load, with what was seen of it before.

    stable: the identity for which a file that ends too early is failed, no longer waited for. quiet: the
    identity with which it may be read though nobody can know whether it is being written. poison_reason: why
    it must not be read again.
    """

    name: str
    stable: Identity | None = None
    poison_reason: str | None = None
    undisposed: Undisposed | None = None
    quiet: Identity | None = None


class Outcome(Struct, frozen=True):
    """The result of a file.

    loaded, duplicate and failed are final. waiting: it is to be tried again; retry_alone: again, in a batch
    of its own; contended: both, another transaction holds what it needs; gone: no such file. Whatever the
    state, `undisposed` is set if the ledger has the file, but it could not be removed; `hides_writers` says
    that nobody can know whether it is being written. `visible_seconds` is from its arrival to its COMMIT, if
    it is loaded and its source knows when it arrived.
    """

    name: str
    state: State
    reason: str = ""
    kind: str | None = None
    size: int = 0
    counts: Counts = Counts()
    seconds: float = 0.0
    identity: Identity | None = None
    undisposed: Undisposed | None = None
    target: str = ""
    hides_writers: bool = False
    first_reject: FirstReject | None = None
    visible_seconds: float | None = None
