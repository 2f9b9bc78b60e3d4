"""Loads one file by itself, at once, as the daemon does when it has waited for it."""

import os
from contextlib import suppress

from processing.batch import FileTask, Outcome
from processing.loader import Loader
from processing.sink import Counts
from sources.local_file import FileIdentity


def load_one(loader: Loader, folder: str, name: str) -> Outcome:
    """A file that ends in the middle, or changes, has had the time for it."""
    identity = _identity(os.path.join(folder, name))
    (outcome,) = loader.load([FileTask(name, stable=identity, quiet=identity)])
    return outcome


def told(counts: Counts) -> str:
    parts = f"{counts.inserted:,} inserted + {counts.duplicate:,} duplicate"
    return f"{counts.read:,} = {parts} + {counts.rejected:,} rejected"


def _identity(path: str) -> FileIdentity | None:
    with suppress(OSError):  # opening it will tell
        return FileIdentity.of(os.lstat(path))
    return None
