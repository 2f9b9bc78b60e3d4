"""One worker's way through a folder, in one process, to be struck at any of its system calls.

It does what the daemon does with the files that are there: each large one by itself, the others together.
"""

import os
import signal
from collections.abc import Callable

import db.chunk
import processing.processor
import processing.reader
import watcher.scan
from commands.workers import StartWorker
from db.connection import Database
from processing.batch import Outcome, Work
from processing.claims import recover_claims
from processing.errors import DatabaseUnavailable, NotReady
from processing.processor import Processor
from processing.settle import OnLoaded

_MAX_SHARED_BYTES = 200_000

#: How often what did not go is tried again at once; the daemon would pause in between.
_TRIES = 2

Say = Callable[[Outcome | Exception], None]


def get_ready() -> None:
    """From now on files of some thousand rows are large ones, and have several chunks."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # as workers do
    db.chunk.CHUNK_ROWS = 1_000
    for module in (processing.reader, processing.processor):
        module.MAX_SHARED_BYTES = _MAX_SHARED_BYTES  # type: ignore[attr-defined]


def main(folder: str, url: str, say: Say) -> int:
    """0 if all went its way; says what became of each file, and which errors came out."""
    failed = os.path.join(folder, "failed")
    processor = StartWorker(folder, failed, "", OnLoaded.DELETE, 2**40, Database(url))()
    try:
        batches = _batches(folder)
    except OSError as error:  # the daemon would look again later
        say(NotReady(error.strerror))
        return 1
    try:
        return max([_load(processor, batch, say) for batch in batches], default=0)
    except Exception as error:  # noqa: BLE001
        say(error)
        return 1


def _batches(folder: str) -> list[list[str]]:
    recover_claims(folder)
    sizes = {name: os.lstat(os.path.join(folder, name)).st_size for name in watcher.scan.waiting(folder)}
    large = [[name] for name, size in sizes.items() if size > _MAX_SHARED_BYTES]
    small = [name for name, size in sizes.items() if size <= _MAX_SHARED_BYTES]
    return [*large, *([small] if small else [])]


def _load(processor: Processor, names: list[str], say: Say) -> int:
    """Again, as the daemon would: the same process has to go on after what has failed."""
    for _ in range(_TRIES):
        try:
            outcomes = processor.load([Work(name) for name in names])
        except DatabaseUnavailable as error:
            say(error)
            continue
        for outcome in outcomes:
            say(outcome)
        names = [outcome.name for outcome in outcomes if outcome.state in ("waiting", "alone")]
        if not names:
            return 0
    return 1
