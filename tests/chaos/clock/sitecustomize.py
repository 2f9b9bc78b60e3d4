"""Makes time.time() adjustable; Python loads this module at its start if PYTHONPATH names this folder.

The file named by CLOCK holds the difference in seconds, a double. Writing it steps the clock of all processes
at once. The monotonic clock is not affected, as when a real clock is set. datetime.now() is not affected
either, because it reads the time in C.
"""

import mmap
import os
import time

_DIFFERENCE_BYTES = 8


def _differ(path: str) -> None:
    with open(path, "rb") as file:
        difference = memoryview(mmap.mmap(file.fileno(), _DIFFERENCE_BYTES, prot=mmap.PROT_READ)).cast("d")
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + difference[0]
    time.time_ns = lambda: now_ns() + int(difference[0] * 1e9)


_differ(os.environ["CLOCK"])
