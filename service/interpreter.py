"""The settings of the interpreter in a process that loads."""

import gc
import sys


def suit_loads() -> None:
    """Collects garbage rarely, and changes threads often; to be called when all is imported."""
    # What lives long lives as long as the process; what a chunk holds dies with it, and has no cycles.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    # The thread that sends waits for the lock of the interpreter several times a chunk, 5 ms each by default.
    sys.setswitchinterval(0.001)
