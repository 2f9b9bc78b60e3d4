"""Loads one file by itself, at once, as the daemon does when it has waited for it."""

import os
from contextlib import suppress

from processing.batch import FileTask, Outcome
from processing.loader import Loader
from sources.local_file import FileIdentity


def load_one(loader: Loader, folder: str, name: str) -> Outcome:
    """Loads the file; one that ends in the middle, or changes, has had the time to be finished."""
    identity = None
    with suppress(OSError):  # opening it reports the reason
        identity = FileIdentity.of(os.lstat(os.path.join(folder, name)))
    (outcome,) = loader.load([FileTask(name, stable=identity, quiet=identity)])
    return outcome
