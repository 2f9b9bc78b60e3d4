"""Does a dry run of files: reports what would happen to each, and changes nothing."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from msgspec import Struct

from config import Settings
from db.connection import Database
from db.dry_run import DryRunSink
from db.row_audit import Progress, no_progress
from processing.batch import FileTask, Outcome
from processing.counted import format_counts
from processing.loader import Loader
from processing.printable import printable
from processing.source import Source
from service.file_kinds import FILE_KINDS, FileKinds
from service.load_one import finished, load_one
from sources.peek import PeekSource
from sources.policy import BUCKET_SCHEME


class _Checked(Struct, frozen=True):
    """A file to check: what it is called, where it is, and how it is loaded."""

    shown: str
    source: Source[Any]
    task: FileTask


def run(
    settings: Settings,
    database: Database,
    paths: Sequence[str],
    report: Callable[[str], None],
    known: FileKinds = FILE_KINDS,
    progress: Progress = no_progress,
) -> int:
    """Reports on each file; returns 0 if all of them would load without a reject, else 1.

    A path may be an address in a bucket, and one that ends with a slash means all objects below it.
    """
    files = [file for path in paths for file in _files(settings, path)]
    good = []
    for number, file in enumerate(files):
        progress("files", number, len(files))
        good.append(_check(settings, database, file, report, known))
    return 0 if all(good) else 1


def _files(settings: Settings, path: str) -> Iterator[_Checked]:
    if not path.startswith(BUCKET_SCHEME):
        file = Path(path)
        folder = str(file.parent)
        yield _Checked(str(file), PeekSource(folder), finished(folder, file.name))
        return
    from service.bucket_shelf import peek_at  # with a package that only a bucket needs

    source, place, names = peek_at(settings, path)
    for name in names:
        yield _Checked(f"{place}{name}", source, FileTask(name))


def _check(
    settings: Settings, database: Database, file: _Checked, report: Callable[[str], None], known: FileKinds
) -> bool:
    with closing(DryRunSink(database, known.tables, settings.max_future_hours)) as sink:
        limits = settings.max_file_bytes, settings.max_reject_ratio
        outcome = load_one(Loader(file.source, sink, *limits, known.kinds), file.task)
        report(f"{printable(file.shown)}: {_result(outcome)}")
        for line in _rejects(sink, outcome):
            report(line)
    return outcome.state in ("loaded", "duplicate") and not outcome.counts.rejected


def _result(outcome: Outcome) -> str:
    match outcome.state:
        case "loaded":
            return f"would load, {format_counts(outcome.counts)} ({outcome.kind})"
        case "duplicate":
            return "would load nothing: these bytes are loaded already"
        case "failed":
            return f"would fail: {outcome.reason}"
        case "gone":
            return "no such file"
        case _:
            return f"would wait: {outcome.reason}"


def _rejects(sink: DryRunSink, outcome: Outcome) -> Iterable[str]:
    for reject in sink.rejects:
        yield printable(f"  {reject.path}  {reject.reason}: {reject.detail}")
    more = outcome.counts.rejected - len(sink.rejects)
    if more > 0:
        yield f"  … and {more:,} more"
