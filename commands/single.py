"""Loads one file by itself, at once, as the daemon does when it has waited for it."""

import os
from contextlib import suppress

from processing.batch import Outcome, Work
from processing.processor import Processor
from processing.reader import Stamp
from processing.sink import Counts


def load_one(processor: Processor, folder: str, name: str) -> Outcome:
    """A file that ends in the middle has had the time to end."""
    (outcome,) = processor.load([Work(name, settled=_stamp(os.path.join(folder, name)))])
    return outcome


def told(counts: Counts) -> str:
    parts = f"{counts.inserted:,} inserted + {counts.duplicate:,} duplicate"
    return f"{counts.read:,} = {parts} + {counts.rejected:,} rejected"


def _stamp(path: str) -> Stamp | None:
    with suppress(OSError):  # opening it will tell
        return Stamp.of(os.lstat(path))
    return None
