"""Loads one batch of files: opens, parses and writes them, commits, and then disposes of them."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, ParamSpec, TypeVar

from msgspec.structs import replace

from processing.batch import FileTask, Outcome, State
from processing.document import Document, Miscounted
from processing.each import Each, in_turn
from processing.errors import (
    BadFile,
    Contended,
    FileError,
    Gone,
    LockTimeout,
    NotReady,
    PartsWanted,
    Refused,
    RetryAlone,
    TooLarge,
    TryAgain,
)
from processing.file_types import KINDS, Kinds
from processing.loading_file import LoadingFile
from processing.records import Parsed
from processing.sink import Counts, Sink, Transaction
from processing.small_file import MUST_BE_CAREFUL, read_whole
from processing.source import MAX_SHARED_BYTES, Source
from processing.text import check_filled, open_text

#: Tries of a transaction that loses races, before its files go back to wait.
_TRIES = 5

#: Takes the bytes and the records of a large file that have been read.
Report = Callable[[int, int], None]

P = ParamSpec("P")
T = TypeVar("T")


def report_nothing(read_bytes: int, records: int) -> None:
    """Does nothing: nobody watches."""


class Loader:
    """Loads batches of files of one source into one sink."""

    def __init__(
        self,
        source: Source[Any],
        sink: Sink,
        max_bytes: int,
        max_reject_ratio: float = 1.0,
        kinds: Kinds = KINDS,
        report: Report = report_nothing,
        each: Each = in_turn,
    ) -> None:
        self._source = source
        self._sink = sink
        self._max_bytes = max_bytes
        self._max_reject_ratio = max_reject_ratio
        self._kinds = kinds
        self._report = report
        self._each = each

    def load(self, batch: Sequence[FileTask]) -> list[Outcome]:
        """Loads the files in one transaction; a bad one among them does not touch the others.

        Raises DatabaseUnavailable, SourceUnavailable or Misconfigured: then all files are as they were.
        """
        started = time.monotonic()
        with ExitStack() as stack:
            files = [LoadingFile(task) for task in batch]
            self._each(partial(self._try_to_open, stack), files)
            # Parses them, writes their rows, and COMMITs.
            self._write([file for file in files if file.error is None and not file.is_duplicate])
            committed_at = time.time()
            # Before any file is touched: from here on the database is not asked any more.
            self._record_failures(files)
            # Only here, after COMMIT has returned, may a file go.
            delays = [file.visible_seconds(committed_at) for file in files]
            outcomes = self._each(self._dispose, files)
        seconds = (time.monotonic() - started) / len(batch)
        return [
            replace(outcome, seconds=seconds, visible_seconds=delay)
            for outcome, delay in zip(outcomes, delays, strict=True)
        ]

    def tidy(self) -> float | None:
        """Removes loaded files that have been quiet, between batches; returns the seconds until the next."""
        return self._source.tidy()

    def close(self) -> None:
        """Waits, once, for the files that tidy() would remove later."""
        self._source.close()

    def _try_to_open(self, stack: ExitStack, file: LoadingFile) -> None:
        try:
            self._open(file, stack)
        except FileError as error:
            file.record(error)

    def _open(self, file: LoadingFile, stack: ExitStack) -> None:
        opened = file.source_file = stack.enter_context(self._source.open(file.task.name))
        undisposed = file.task.undisposed
        if undisposed and undisposed.identity == opened.identity:  # neither read nor entered again
            file.undisposed = undisposed
            opened.sha256 = undisposed.sha256
            if undisposed.failure:
                raise BadFile(undisposed.failure)
            file.is_duplicate = True
            return
        if opened.hides_writers and file.task.quiet != opened.identity:
            raise NotReady(
                f"nobody can know who writes it ({opened.hides_writers}), "
                "and it has not been unchanged for long enough (QUIET_SECONDS)"
            )
        if (size := opened.identity.size) > self._max_bytes:
            raise BadFile(f"expected at most {self._max_bytes} bytes (MAX_FILE_BYTES), got {size}")
        if file.task.poison_reason is not None:
            raise BadFile(file.task.poison_reason)  # unread: reading it may be what killed the workers
        opened.digest()

    def _write(self, files: Sequence[LoadingFile]) -> None:
        """Writes the rows of all files, a large one by itself."""
        if len(files) == 1 and files[0].opened.identity.size > MAX_SHARED_BYTES:
            self._write_alone(files[0])
        elif files:
            self._write_shared(files)
            # Small as dropped, but not its text, or what it takes in memory.
            if len(files) == 1 and isinstance(files[0].error, TooLarge):
                self._write_alone(files[0])

    def _write_shared(self, files: Sequence[LoadingFile]) -> None:
        """Writes the files together, again and again without those that would roll it back.

        Which of them meets with another transaction, or whose reject or entry is refused, is not known: each
        is tried alone.
        """
        try:
            if files and not _repeat_lost_races(self._write_together, files):
                self._write_shared([file for file in files if file.error is None])
        except (Refused, TryAgain, PartsWanted) as error:
            for file in files:
                file.counts = Counts()
                file.error = file.error or (RetryAlone() if len(files) > 1 else _alone(error))

    def _write_together(self, files: Sequence[LoadingFile]) -> bool:
        """Reads each file whole before its rows join the transaction: a bad one leaves no trace in it.

        Returns False, and writes nothing, if a file turns out to have too many rejects.
        """
        with self._sink.transaction(is_hasty=True) as transaction:
            loaded = transaction.loaded([file.opened.sha256 for file in files])
            written = []
            for file in files:
                file.error, file.counts = None, Counts()
                file.is_duplicate = file.opened.sha256 in loaded
                if file.is_duplicate:
                    transaction.redelivered(file.delivery)
                    continue
                try:
                    elements = read_whole(file, self._kinds)
                except FileError as error:
                    file.record(error)
                    continue
                _write_elements(transaction, file, elements)
                if file.extra:
                    transaction.keep(file.extra)
                loaded.add(file.opened.sha256)
                written.append(file)
            # Finished before any count is checked: conflicts count as rejects, and show only then.
            finished = zip(written, transaction.finish(), transaction.first_rejects(), strict=True)
            for file, counts, first in finished:
                try:
                    self._check_counts(file, counts, is_shared=len(files) > 1)
                    file.counts, file.first_reject = counts, first
                except FileError as error:
                    file.record(error)
            if is_good := not any(file.error for file in written):
                transaction.commit()
            return is_good

    def _write_alone(self, file: LoadingFile) -> None:
        """Writes rows while the file is read: whatever is wrong with it rolls all of them back."""
        file.error = None
        try:
            try:
                self._stream_again(file, careful=False)
            except MUST_BE_CAREFUL as why:
                file.note_careful(why)
                self._stream_again(file, careful=True)
        except TooLarge:
            file.record(BadFile(f"expected at most {self._max_bytes} bytes of text (MAX_FILE_BYTES)"))
        except FileError as error:
            file.record(error)
        except Refused as error:
            file.record(BadFile(str(error)))
        except TryAgain as error:
            file.record(Contended(str(error)))

    def _stream_again(self, file: LoadingFile, *, careful: bool) -> None:
        """Streams the file until no race is lost; again in parts if it is good, and too large for one."""
        try:
            _repeat_lost_races(self._stream, file, careful=careful)
        except PartsWanted:
            file.is_checked = True
            _repeat_lost_races(self._stream, file, careful=careful)

    def _stream(self, file: LoadingFile, *, careful: bool) -> None:
        with self._sink.transaction() as transaction:
            file.is_duplicate = bool(transaction.loaded([file.opened.sha256]))
            if file.is_duplicate:
                transaction.redelivered(file.delivery)
                transaction.commit()
                return
            document = self._read(file, partial(_write_elements, transaction, file), careful=careful)
            if document.extra:
                transaction.keep(document.extra)
            (counts,) = transaction.finish()
            self._check_counts(file, counts)
            if careful:
                file.note_fault(document)
            transaction.commit()
            file.counts, (file.first_reject,) = counts, transaction.first_rejects()

    def _read(
        self, file: LoadingFile, take: Callable[[Iterable[Parsed]], None], *, careful: bool
    ) -> Document:
        """Reads the whole document, whose elements are taken while they are read."""
        try:
            open_again = partial(open_text, file.opened, self._max_bytes)
            document = Document(file.task.name, open_again, careful=careful, kinds=self._kinds)
            file.kind = document.kind
            take(self._reported(file, document.parsed()))
        except BadFile:
            check_filled(file.opened)
            raise
        file.opened.check_unchanged()
        document.check(file.elements, file.records)
        return document

    def _reported(self, file: LoadingFile, elements: Iterable[Parsed]) -> Iterator[Parsed]:
        for parsed in elements:
            yield parsed
            self._report(file.opened.position, file.records)

    def _check_counts(self, file: LoadingFile, counts: Counts, *, is_shared: bool = False) -> None:
        """Raises Miscounted unless the sink has read all records; BadFile if too many were rejected."""
        if counts.read != file.records:
            raise Miscounted(file.elements, counts.read)
        if counts.read and counts.rejected / counts.read > self._max_reject_ratio:
            if is_shared:  # it may be in conflict with another file of its transaction
                raise RetryAlone
            raise BadFile(
                f"expected a share of at most {self._max_reject_ratio:g} of rejected records "
                f"(MAX_REJECT_RATIO), got {counts.rejected} of {counts.read}"
            )

    def _record_failures(self, files: Sequence[LoadingFile]) -> None:
        for file in files:
            if isinstance(file.error, BadFile) and file.undisposed is None:
                kind = file.kind.name if file.kind else None
                try:
                    self._sink.record_failure(file.delivery, kind, str(file.error))
                except Refused as error:
                    file.error = NotReady(f"{file.error}; {error}")
                except TryAgain as error:
                    file.error = Contended(str(error))

    def _dispose(self, file: LoadingFile) -> Outcome:
        """Disposes of a file that is loaded or bad, leaves every other."""
        match file.error:
            case None:
                state: State = "duplicate" if file.is_duplicate else "loaded"
                try:
                    self._source.complete(file.opened)
                except NotReady as error:
                    return file.outcome_undisposed(state, str(error))
                return file.outcome(state, file.fault)
            case BadFile():
                return self._quarantine(file, str(file.error))
            case TooLarge() | RetryAlone():
                return file.outcome("retry_alone")
            case Contended():
                return file.outcome("contended", str(file.error))
            case Gone():
                return file.outcome("gone")
            case _:  # NotReady
                return file.outcome("waiting", str(file.error))

    def _quarantine(self, file: LoadingFile, reason: str) -> Outcome:
        try:
            if file.source_file is None:
                target = self._source.quarantine_unopened(file.task.name, reason)
            else:
                target = self._source.quarantine(file.source_file, reason)
        except NotReady as error:
            return file.outcome_undisposed("waiting", f"{reason}; {error}", failure=reason)
        return replace(file.outcome("failed", reason), target=target)


def _write_elements(transaction: Transaction, file: LoadingFile, elements: Iterable[Parsed]) -> None:
    assert file.kind is not None
    transaction.begin_file(file.delivery, file.kind)
    file.elements = file.records = 0
    for parsed in elements:
        transaction.write(parsed)
        # Behind it: what is counted has been handed on.
        file.elements += parsed.count
        file.records += len(parsed.records) + len(parsed.rejected)


def _alone(error: Exception) -> FileError:
    """Returns what an error of its transaction means for a file that was alone in it."""
    match error:
        case PartsWanted():
            return TooLarge()
        case Refused():
            return BadFile(str(error))
        case _:
            return Contended(str(error))


def _repeat_lost_races(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Repeats a transaction that lost a race: the ledger then shows who won."""
    for _ in range(_TRIES - 1):
        try:
            return step(*args, **kwargs)
        except LockTimeout:
            raise
        except TryAgain:
            continue
    return step(*args, **kwargs)
