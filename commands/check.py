"""A dry run: what would become of files, told and not done."""

import os
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path

from config import Settings
from db.connection import Database
from db.rehearsal import Rehearsal
from processing.names import printable
from processing.processor import Outcome, Processor, Work
from processing.reader import Stamp
from processing.settle import LeaveAlone
from processing.unlocked import open_unlocked


def run(settings: Settings, database: Database, paths: Iterable[Path], tell: Callable[[str], None]) -> int:
    """The exit code: 0 if all of them would load without a reject."""
    good = [_check(settings, database, path, tell) for path in paths]
    return 0 if all(good) else 1


def _check(settings: Settings, database: Database, path: Path, tell: Callable[[str], None]) -> bool:
    with closing(Rehearsal(database)) as sink:
        outcome = _rehearse(settings, sink, path)
        tell(f"{printable(str(path))}: {_told(outcome)}")
        for line in _rejects(sink, outcome):
            tell(line)
    return outcome.state in ("loaded", "duplicate") and not outcome.counts.rejected


def _rehearse(settings: Settings, sink: Rehearsal, path: Path) -> Outcome:
    """What the daemon would do once it has waited for as long as it does."""
    limits = settings.max_file_bytes, settings.max_reject_ratio
    processor = Processor(str(path.parent), sink, LeaveAlone(), *limits, open_unlocked)
    (outcome,) = processor.load([Work(path.name, settled=_stamp(path))])
    return outcome


def _stamp(path: Path) -> Stamp | None:
    with suppress(OSError):  # opening it will tell
        return Stamp.of(os.lstat(path))
    return None


def _told(outcome: Outcome) -> str:
    counts = outcome.counts
    match outcome.state:
        case "loaded":
            parts = f"{counts.inserted:,} inserted + {counts.duplicate:,} duplicate"
            return f"would load, {counts.read:,} = {parts} + {counts.rejected:,} rejected ({outcome.kind})"
        case "duplicate":
            return "would load nothing: these bytes are loaded already"
        case "failed":
            return f"would fail: {outcome.reason}"
        case "gone":
            return "no such file"
        case _:
            return f"would wait: {outcome.reason}"


def _rejects(sink: Rehearsal, outcome: Outcome) -> Iterable[str]:
    for reject in sink.rejects:
        yield printable(f"  {reject.path}  {reject.reason}: {reject.detail}")
    more = outcome.counts.rejected - len(sink.rejects)
    if more > 0:
        yield f"  … and {more:,} more"
