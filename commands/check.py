"""Does a dry run of files: reports what would happen to each, and changes nothing."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

from config import Settings
from db.connection import Database
from db.dry_run import DryRunSink
from db.row_audit import Progress, no_progress
from processing.batch import Outcome
from processing.counted import format_counts
from processing.loader import Loader
from processing.printable import printable
from service.file_kinds import FILE_KINDS, FileKinds
from service.load_one import load_one
from sources.peek import PeekSource


def run(
    settings: Settings,
    database: Database,
    paths: Sequence[Path],
    report: Callable[[str], None],
    known: FileKinds = FILE_KINDS,
    progress: Progress = no_progress,
) -> int:
    """Reports on each file; returns 0 if all of them would load without a reject, else 1."""
    good = []
    for number, path in enumerate(paths):
        progress("files", number, len(paths))
        good.append(_check(settings, database, path, report, known))
    return 0 if all(good) else 1


def _check(
    settings: Settings, database: Database, path: Path, report: Callable[[str], None], known: FileKinds
) -> bool:
    with closing(DryRunSink(database, known.tables, settings.max_future_hours)) as sink:
        outcome = _rehearse(settings, sink, path, known)
        report(f"{printable(str(path))}: {_result(outcome)}")
        for line in _rejects(sink, outcome):
            report(line)
    return outcome.state in ("loaded", "duplicate") and not outcome.counts.rejected


def _rehearse(settings: Settings, sink: DryRunSink, path: Path, known: FileKinds) -> Outcome:
    """Returns what the daemon would do with the file."""
    limits = settings.max_file_bytes, settings.max_reject_ratio
    loader = Loader(PeekSource(str(path.parent)), sink, *limits, known.kinds)
    return load_one(loader, str(path.parent), path.name)


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
