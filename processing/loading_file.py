"""One file of a batch while it is loaded: what is known of it, and the outcome that follows."""

from datetime import UTC, datetime

from msgspec.structs import replace

from processing.batch import FileTask, Outcome, State, Undisposed
from processing.document import Document, Miscounted
from processing.errors import BadFile, FileError, Incomplete, NotReady
from processing.printable import printable
from processing.records import Kind
from processing.sink import Counts, Delivery, FirstReject
from processing.source import SourceFile


class LoadingFile:
    """A file on its way from its task to its outcome."""

    def __init__(self, task: FileTask) -> None:
        self.task = task
        self.source_file: SourceFile | None = None
        self.undisposed: Undisposed | None = None
        self.error: FileError | None = None
        self.kind: Kind | None = None
        self.counts = Counts()
        self.first_reject: FirstReject | None = None
        self.is_duplicate = False
        self.is_checked = False  # to its end, so that it may be committed in parts
        self.elements = self.records = 0
        self.why_careful: Exception | None = None
        self.fault = ""
        self.extra: str | None = None
        self._started_at = datetime.now(UTC)

    @property
    def opened(self) -> SourceFile:
        assert self.source_file is not None
        return self.source_file

    @property
    def delivery(self) -> Delivery:
        file = self.source_file
        digest, size = (file.sha256 or None, file.identity.size) if file else (None, 0)
        name, origin = (file.name, file.origin) if file else (self.task.name, None)
        check = file.check_unchanged if file and self.is_checked else None
        return Delivery(digest, printable(name), size, self._started_at, origin, check)

    def visible_seconds(self, committed_at: float) -> float | None:
        """Returns the seconds from its arrival until its rows were committed, if they were."""
        arrived_at = self.source_file.arrived_at if self.source_file else None
        if self.error or self.is_duplicate or arrived_at is None:
            return None
        return max(0.0, committed_at - arrived_at)

    def note_careful(self, why: Exception) -> None:
        """Notes why a second, careful pass is needed."""
        _forget_frames(why)
        self.why_careful = why

    def note_fault(self, document: Document) -> None:
        """Notes a careful pass that was needed, though no reason for it lies in the document."""
        is_ours = isinstance(self.why_careful, Miscounted) and not document.has_repeats
        self.fault = f"read twice: {self.why_careful}" if is_ours else ""

    def record(self, error: FileError) -> None:
        """Records what is wrong with the file."""
        _forget_frames(error)
        if isinstance(error, Incomplete) and self._is_stable:
            error = BadFile(str(error))
        self.error = self._unless_changed(error) if isinstance(error, BadFile) else error

    @property
    def _is_stable(self) -> bool:
        file = self.source_file
        return file is not None and (not file.may_grow or self.task.stable == file.identity)

    def _unless_changed(self, error: BadFile) -> BadFile | NotReady:
        """Returns NotReady instead if somebody may be writing the file: then it is not bad yet."""
        file = self.source_file
        if file is None:
            return error
        try:
            file.check_unchanged()
        except NotReady as not_ready:
            return not_ready
        is_hidden = file.hides_writers and self.undisposed is None
        return NotReady(str(error)) if is_hidden and not self._is_stable else error

    def outcome(self, state: State, reason: str = "") -> Outcome:
        file = self.source_file
        return Outcome(
            self.task.name,
            state,
            reason,
            self.kind.name if self.kind else None,
            file.identity.size if file else 0,
            self.counts,
            identity=file.identity if file else None,
            hides_writers=file is not None and bool(file.hides_writers),
            first_reject=self.first_reject,
        )

    def outcome_undisposed(self, state: State, reason: str, failure: str = "") -> Outcome:
        """Outcome of a file that the ledger has, but that could not be removed or quarantined."""
        outcome = self.outcome(state, reason)
        if self.source_file is None:
            return outcome
        identity = self.source_file.identity_if_moved()
        return replace(
            outcome, identity=identity, undisposed=Undisposed(identity, failure, self.source_file.sha256)
        )


def _forget_frames(error: Exception) -> None:
    """Removes the traces of an error that is kept: their frames hold the file, and all that was read of it.

    The file holds the error: only the collector would free such a cycle, and it counts objects, not bytes.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None
