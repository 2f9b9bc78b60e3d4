"""One worker's way through a folder, in one process, to be killed at any of its system calls.

python -m tests.chaos.ingest FOLDER URL does what the daemon does with the files that are there: each
large one by itself, the others together.
"""

import os
import signal
import sys
from contextlib import suppress

import db.chunk
import watcher.scan
from commands.workers import StartWorker
from db.connection import Database
from processing.processor import Work
from processing.reader import MAX_SHARED_BYTES
from processing.settle import OnLoaded, recover_claims

#: In a trace, what comes before this call is Python's own start.
MARK = "the ingest begins here"


def main(folder: str, url: str) -> None:
    db.chunk.CHUNK_ROWS = 10_000  # so that large files have several
    failed = os.path.join(folder, "failed")
    processor = StartWorker(folder, failed, "", OnLoaded.DELETE, 2**40, Database(url))()
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    with suppress(FileNotFoundError):
        os.open(MARK, os.O_RDONLY)
    recover_claims(folder)
    sizes = {name: os.lstat(os.path.join(folder, name)).st_size for name in watcher.scan.waiting(folder)}
    for name in [name for name, size in sizes.items() if size > MAX_SHARED_BYTES]:
        processor.load([Work(name)])
    small = [Work(name) for name, size in sizes.items() if size <= MAX_SHARED_BYTES]
    if small:
        processor.load(small)


if __name__ == "__main__":
    main(*sys.argv[1:])
