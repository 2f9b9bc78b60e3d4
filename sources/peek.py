"""Opens a file to look at it: nobody is kept from it meanwhile."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sources.local_file import Source, open_source


@contextmanager
def open_for_inspection(folder: str, name: str) -> Iterator[Source]:
    """As open_source() does it, and with the same errors, but the lock is given back at once."""
    with open_source(folder, name) as source:
        with suppress(OSError):  # not every network file system can lock
            fcntl.flock(source.fd, fcntl.LOCK_UN)
        yield source
