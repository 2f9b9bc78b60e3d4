"""Loads one file by itself, at once, as the daemon does when it has waited for it."""

import os
from contextlib import suppress

from processing.batch import Outcome, Work
from processing.loader import Processor
from processing.sink import Counts
from sources.local_file import Stamp


def load_one(processor: Processor, folder: str, name: str) -> Outcome:
    """A file that ends in the middle, or changes, has had the time for it."""
    stamp = _stamp(os.path.join(folder, name))
    (outcome,) = processor.load([Work(name, settled=stamp, quiet=stamp)])
    return outcome


def told(counts: Counts) -> str:
    parts = f"{counts.inserted:,} inserted + {counts.duplicate:,} duplicate"
    return f"{counts.read:,} = {parts} + {counts.rejected:,} rejected"


def _stamp(path: str) -> Stamp | None:
    with suppress(OSError):  # opening it will tell
        return Stamp.of(os.lstat(path))
    return None
