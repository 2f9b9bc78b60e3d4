"""Loads one file by itself, at once, as the daemon does when it has waited for it."""

import os
from contextlib import suppress

from processing.batch import FileTask, Outcome
from processing.loader import Loader
from sources.local_file import FileIdentity


def load_one(loader: Loader, task: FileTask) -> Outcome:
    (outcome,) = loader.load([task])
    return outcome


def finished(folder: str, name: str) -> FileTask:
    """Returns the task of a file that had the time to be finished: if it ends in the middle, it is bad."""
    identity = None
    with suppress(OSError):  # opening it reports the reason
        identity = FileIdentity.of(os.lstat(os.path.join(folder, name)))
    return FileTask(name, stable=identity, quiet=identity)
