"""What goes to a worker with a batch of files, and what comes back."""

from typing import Literal

from msgspec import Struct

from processing.sink import Counts
from sources.local_file import Stamp

State = Literal["loaded", "duplicate", "failed", "waiting", "contended", "alone", "gone"]


class Ended(Struct, frozen=True):
    """A file that could not be removed or moved, with this stamp, though the ledger has it: as loaded, or
    as failed for that reason."""

    stamp: Stamp
    failure: str = ""


class Work(Struct, frozen=True):
    """A file to load.

    quiet is the stamp with which it has waited for long enough to be read though nobody can tell whether it
    is being written, settled the one with which it is failed if it still ends in the middle; condemned says
    why it must not be read again; ended is how it did when it was tried before.
    """

    name: str
    settled: Stamp | None = None
    condemned: str | None = None
    ended: Ended | None = None
    quiet: Stamp | None = None


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
    stamp: Stamp | None = None
    ended: Ended | None = None
    target: str = ""
    hides_writers: bool = False
