"""What goes to a worker with a batch of files, and what comes back."""

from typing import Literal

from msgspec import Struct

from processing.sink import Counts
from sources.local_file import FileIdentity

State = Literal["loaded", "duplicate", "failed", "waiting", "contended", "retry_alone", "gone"]


class Undisposed(Struct, frozen=True):
    """A file that could not be removed or moved, with this stamp, though the ledger has it: as loaded, or
    as failed for that reason."""

    identity: FileIdentity
    failure: str = ""


class FileTask(Struct, frozen=True):
    """A file to load.

    quiet is the stamp with which it has waited for long enough to be read though nobody can tell whether it
    is being written, settled the one with which it is failed if it still ends in the middle; condemned says
    why it must not be read again; ended is how it did when it was tried before.
    """

    name: str
    stable: FileIdentity | None = None
    poison_reason: str | None = None
    undisposed: Undisposed | None = None
    quiet: FileIdentity | None = None


class Outcome(Struct, frozen=True):
    """What became of a file.

    loaded, duplicate and failed are final; waiting and alone: it has to be tried again, or again without
    others; contended: both, another transaction holds what it needs; gone: it was not there. Whatever the
    state, ended is how it did if the file is still there, and hides_writers says that nobody can tell whether
    it is being written.
    """

    name: str
    state: State
    reason: str = ""
    kind: str | None = None
    size: int = 0
    counts: Counts = Counts()
    seconds: float = 0.0
    identity: FileIdentity | None = None
    undisposed: Undisposed | None = None
    target: str = ""
    hides_writers: bool = False
