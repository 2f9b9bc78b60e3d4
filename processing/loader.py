"""Takes one batch of files through: open, read, write, commit, settle."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TypeVar

from msgspec.structs import replace

from processing.batch import FileTask, Outcome, State, Undisposed
from processing.document import Document, LongKey, Miscounted, RepeatedKey
from processing.errors import (
    BadFile,
    Contended,
    Gone,
    Incomplete,
    LockTimeout,
    NotReady,
    Refused,
    RetryAlone,
    TooLarge,
    TryAgain,
)
from processing.printable import printable
from processing.records import Kind, Parsed
from processing.sink import Counts, Delivery, Sink, Transaction
from processing.text import filled, open_text
from sources.disposal import FileDisposer, NoDisposal
from sources.local_file import MAX_SHARED_BYTES, Source, open_source

#: How often a transaction is repeated that lost a race, before its files go back to wait.
_TRIES = 5

#: What a pass raises of a document that has to be read carefully.
_MUST_BE_CAREFUL = (RepeatedKey, LongKey, Miscounted)

#: Rejects of a small file that are held together: each takes hundreds of bytes, however short its text is.
_MAX_REJECTS = 10_000

FileError = BadFile | NotReady | Gone | TooLarge | RetryAlone | Contended

#: Opens the file of a folder that has a name, as open_source() does, and with the same errors.
OpenFile = Callable[[str, str], AbstractContextManager[Source]]

T = TypeVar("T")


class Loader:
    """Loads batches of files of one folder into one sink."""

    def __init__(
        self,
        folder: str,
        sink: Sink,
        disposer: FileDisposer | NoDisposal,
        max_bytes: int,
        max_reject_ratio: float = 1.0,
        open_file: OpenFile = open_source,
    ) -> None:
        self._folder = folder
        self._sink = sink
        self._disposer = disposer
        self._max_bytes = max_bytes
        self._max_reject_ratio = max_reject_ratio
        self._open_file = open_file

    def load(self, batch: Sequence[FileTask]) -> list[Outcome]:
        """Loads the files in one transaction; a bad one among them does not touch the others.

        Raises DatabaseUnavailable or Misconfigured: then all files are as they were.
        """
        started = time.monotonic()
        with ExitStack() as stack:
            files = [_File(work) for work in batch]
            for file in files:
                with file.record_errors():
                    self._open(file, stack)
            self._write([file for file in files if file.error is None and not file.is_duplicate])
            self._record_failures(files)
            outcomes = [self._settle(file) for file in files]
        seconds = (time.monotonic() - started) / len(batch)
        return [replace(outcome, seconds=seconds) for outcome in outcomes]

    def rest(self) -> float | None:
        """Between batches: removes what is loaded and has been quiet; seconds until there is more of that."""
        return self._disposer.sweep()

    def close(self) -> None:
        """Waits, once, until that is done."""
        self._disposer.close()

    def _open(self, file: "_File", stack: ExitStack) -> None:
        source = file.source = stack.enter_context(self._open_file(self._folder, file.work.name))
        if file.undisposed is not None:
            if file.undisposed.failure:
                raise BadFile(file.undisposed.failure)
            file.is_duplicate = True
            return
        if source.hides_writers and file.work.quiet != source.identity:
            raise NotReady(
                f"nobody can tell who writes it ({source.hides_writers}), "
                "and it has not been unchanged for long enough (QUIET_SECONDS)"
            )
        if source.identity.size > self._max_bytes:
            size = source.identity.size
            raise BadFile(f"expected at most {self._max_bytes} bytes (MAX_FILE_BYTES), got {size}")
        if file.work.poison_reason is not None:
            raise BadFile(file.work.poison_reason)  # unread: reading it may be what killed the workers
        source.digest()

    def _write(self, files: Sequence["_File"]) -> None:
        """Writes the rows of all files, a large one by itself."""
        if len(files) == 1 and files[0].is_large:
            self._write_alone(files[0])
        elif files:
            self._write_shared(files)
            if len(files) == 1 and isinstance(files[0].error, TooLarge):
                self._write_alone(files[0])

    def _write_shared(self, files: Sequence["_File"]) -> None:
        """As often as it takes to leave out the files that would roll it back.

        Which of them meets with another transaction, or whose reject or entry is refused, is not known: each
        is tried alone.
        """
        try:
            if files and not _repeated(lambda: self._write_together(files)):
                self._write_shared([file for file in files if file.error is None])
        except (Refused, TryAgain) as error:
            alone = BadFile(str(error)) if isinstance(error, Refused) else Contended(str(error))
            for file in files:
                file.counts = Counts()
                file.error = file.error or (RetryAlone() if len(files) > 1 else alone)

    def _write_together(self, files: Sequence["_File"]) -> bool:
        """Each file is read whole before its rows join the transaction: a bad one leaves no trace in it.

        False, and nothing is written, if a file turns out to have too many rejects.
        """
        with self._sink.transaction(is_hasty=True) as transaction:
            loaded = transaction.loaded([file.sha256 for file in files])
            written = []
            for file in files:
                file.error, file.counts, file.is_duplicate = None, Counts(), file.sha256 in loaded
                if file.is_duplicate:
                    transaction.redelivered(file.delivery)
                    continue
                with file.record_errors():
                    elements = _read_whole(file)
                    _write_elements(transaction, file, elements)
                    loaded.add(file.sha256)
                    written.append(file)
            for file, counts in zip(written, transaction.finish(), strict=True):
                with file.record_errors():
                    file.check_count(counts)
                    self._check_rejects(counts, is_shared=len(files) > 1)
                    file.counts = counts
            if any(file.error for file in written):
                return False
            transaction.commit()
            return True

    def _check_rejects(self, counts: Counts, *, is_shared: bool = False) -> None:
        """Of records in conflict, too: hence only when all are written.

        What a file conflicts with may be another one of its transaction: it is judged when it is alone.
        """
        if counts.read and counts.rejected / counts.read > self._max_reject_ratio:
            if is_shared:
                raise RetryAlone
            raise BadFile(
                f"expected a share of at most {self._max_reject_ratio:g} of rejected records "
                f"(MAX_REJECT_RATIO), got {counts.rejected} of {counts.read}"
            )

    def _write_alone(self, file: "_File") -> None:
        """Rows flow while the file is read: whatever is wrong with it rolls all of them back."""
        file.error = None
        with file.record_errors():
            try:
                _repeated(lambda: self._stream(file, careful=False))
            except _MUST_BE_CAREFUL as why:
                file.why_careful = why
                _repeated(lambda: self._stream(file, careful=True))
            except TooLarge:
                raise BadFile(f"expected at most {self._max_bytes} bytes of text (MAX_FILE_BYTES)") from None
            except Refused as error:
                raise BadFile(str(error)) from None
            except TryAgain as error:
                raise Contended(str(error)) from None

    def _stream(self, file: "_File", *, careful: bool) -> None:
        with self._sink.transaction() as transaction:
            file.is_duplicate = bool(transaction.loaded([file.sha256]))
            if file.is_duplicate:
                transaction.redelivered(file.delivery)
                transaction.commit()
                return
            with filled(file.opened):
                document = _document(file, self._max_bytes, careful=careful)
                file.kind = document.kind
                _write_elements(transaction, file, document.parsed())
            file.opened.check_unchanged()
            document.check(file.elements, file.records)
            (counts,) = transaction.finish()
            file.check_count(counts)
            self._check_rejects(counts)
            if careful:
                file.note_fault(document)
            transaction.commit()
            file.counts = counts

    def _record_failures(self, files: Sequence["_File"]) -> None:
        """Before any file is touched: from here on the database is not asked any more."""
        for file in files:
            if isinstance(file.error, BadFile) and file.undisposed is None:
                kind = file.kind.name if file.kind else None
                try:
                    self._sink.record_failure(file.delivery, kind, str(file.error))
                except Refused as error:
                    file.error = NotReady(f"{file.error}; {error}")
                except TryAgain as error:
                    file.error = Contended(str(error))

    def _settle(self, file: "_File") -> Outcome:
        match file.error:
            case None:
                return self._settle_loaded(file)
            case BadFile():
                return self._settle_failed(file, str(file.error))
            case NotReady():
                return file.outcome("waiting", str(file.error))
            case TooLarge() | RetryAlone():
                return file.outcome("retry_alone")
            case Contended():
                return file.outcome("contended", str(file.error))
            case Gone():
                return file.outcome("gone")

    def _settle_loaded(self, file: "_File") -> Outcome:
        """Only here, after COMMIT has returned, may the file go."""
        state: State = "duplicate" if file.is_duplicate else "loaded"
        try:
            self._disposer.loaded(file.opened)
        except NotReady as error:
            return file.still_there(state, str(error))
        return file.outcome(state, file.fault)

    def _settle_failed(self, file: "_File", reason: str) -> Outcome:
        try:
            if file.source is None:
                target = self._disposer.failed_unread(file.work.name, reason)
            else:
                target = self._disposer.failed(file.source, reason)
        except NotReady as error:
            return file.still_there("waiting", f"{reason}; {error}", failure=reason)
        return replace(file.outcome("failed", reason), target=target)


class _File:
    """One file of a batch on its way."""

    def __init__(self, work: FileTask) -> None:
        self.work = work
        self.source: Source | None = None
        self.error: FileError | None = None
        self.kind: Kind | None = None
        self.counts = Counts()
        self.is_duplicate = False
        self.elements = self.records = 0
        self.why_careful: Exception | None = None
        self.fault = ""
        self._started_at = datetime.now(UTC)

    @property
    def opened(self) -> Source:
        assert self.source is not None
        return self.source

    @property
    def sha256(self) -> bytes:
        return self.opened.sha256

    @property
    def is_large(self) -> bool:
        return self.opened.identity.size > MAX_SHARED_BYTES

    @property
    def undisposed(self) -> Undisposed | None:
        """How this very file ended when it was tried before: it is neither read nor entered again."""
        undisposed = self.work.undisposed
        return (
            undisposed if undisposed and self.source and self.source.identity == undisposed.identity else None
        )

    @property
    def delivery(self) -> Delivery:
        source = self.source
        digest, size = (source.sha256 or None, source.identity.size) if source else (None, 0)
        return Delivery(digest, printable(self.work.name), size, self._started_at)

    def check_count(self, counts: Counts) -> None:
        """Raises Miscounted unless the sink has read what was handed on to it."""
        if counts.read != self.records:
            raise Miscounted(self.elements, counts.read)

    def note_fault(self, document: Document) -> None:
        """That it was read carefully, and rightly, without a reason that lies in the document."""
        is_ours = isinstance(self.why_careful, Miscounted) and not document.has_repeats
        self.fault = f"read twice: {self.why_careful}" if is_ours else ""

    @contextmanager
    def record_errors(self) -> Iterator[None]:
        """What goes wrong with this file alone ends its way, not that of the batch."""
        try:
            yield
        except Incomplete as error:
            self.error = self._unless_changed(BadFile(str(error))) if self._has_settled else error
        except BadFile as error:
            self.error = self._unless_changed(error)
        except (NotReady, Gone, TooLarge, RetryAlone, Contended) as error:
            self.error = error

    @property
    def _has_settled(self) -> bool:
        return self.source is not None and self.work.stable == self.source.identity

    def outcome(self, state: State, reason: str = "") -> Outcome:
        kind = self.kind.name if self.kind else None
        identity = self.source.identity if self.source else None
        size = identity.size if identity else 0
        hidden = self.source is not None and bool(self.source.hides_writers)
        return Outcome(
            self.work.name, state, reason, kind, size, self.counts, identity=identity, hides_writers=hidden
        )

    def still_there(self, state: State, reason: str, failure: str = "") -> Outcome:
        """Of a file that the ledger has, but that could not be removed or moved."""
        outcome = self.outcome(state, reason)
        if self.source is None:
            return outcome
        identity = self.source.identity_if_moved()
        return replace(outcome, identity=identity, undisposed=Undisposed(identity, failure))

    def _unless_changed(self, error: BadFile) -> BadFile | NotReady:
        """A file that somebody is writing is not bad yet."""
        try:
            if self.source:
                self.source.check_unchanged()
        except NotReady as not_ready:
            return not_ready
        is_hidden = self.source is not None and self.source.hides_writers and self.undisposed is None
        return NotReady(str(error)) if is_hidden and not self._has_settled else error


def _document(file: _File, max_bytes: int, *, careful: bool) -> Document:
    return Document(file.work.name, lambda: open_text(file.opened, max_bytes), careful=careful)


def _read_whole(file: _File) -> list[Parsed]:
    """All elements of a small file; raises TooLarge if its text is not small, or what it takes in memory."""
    try:
        elements = _read_once(file, careful=False)
    except _MUST_BE_CAREFUL as why:
        file.why_careful = why
        elements = _read_once(file, careful=True)
    file.opened.check_unchanged()
    return elements


def _read_once(file: _File, *, careful: bool) -> list[Parsed]:
    with filled(file.opened):
        document = _document(file, MAX_SHARED_BYTES, careful=careful)
        file.kind = document.kind
        elements = _all_of(document)
    document.check(sum(parsed.count for parsed in elements), _count_records(elements))
    if careful:
        file.note_fault(document)
    return elements


def _all_of(document: Document) -> list[Parsed]:
    elements, left = [], _MAX_REJECTS
    for parsed in document.parsed():
        left -= len(parsed.rejected)
        if left < 0:
            raise TooLarge
        elements.append(parsed)
    return elements


def _count_records(elements: Iterable[Parsed]) -> int:
    return sum(len(parsed.records) + len(parsed.rejected) for parsed in elements)


def _write_elements(transaction: Transaction, file: _File, elements: Iterable[Parsed]) -> None:
    assert file.kind is not None
    transaction.begin_file(file.delivery, file.kind)
    file.elements = file.records = 0
    for parsed in elements:
        transaction.write(parsed)
        # Behind it: what is counted has been handed on.
        file.elements += parsed.count
        file.records += len(parsed.records) + len(parsed.rejected)


def _repeated(step: Callable[[], T]) -> T:
    """A transaction that lost a race is tried again: the ledger then shows who won."""
    for _ in range(_TRIES - 1):
        try:
            return step()
        except LockTimeout:
            raise
        except TryAgain:
            continue
    return step()
