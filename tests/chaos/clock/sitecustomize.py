"""Python loads this at its start where PYTHONPATH names this folder: then time.time() can be set at will.

Seconds of difference, a double, are in the file that CLOCK names: whoever writes it steps the clock of all
processes at once. The monotonic clock goes on, as it does when a real clock is set; datetime.now(), in C,
does not notice.
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
