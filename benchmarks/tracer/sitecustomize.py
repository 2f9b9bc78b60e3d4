"""Notes the first call of each of our functions; Python loads this where PYTHONPATH names its folder.

The folder that TRACE names holds a file `armed`: calls are noted while its only byte is not 0. Each process
writes a file named after its number there: a line for each function, and one for each file that it removes.
"""

import mmap
import os
import sys
import threading
import time
from pathlib import Path
from types import CodeType, FrameType

_ROOT = f"{Path(__file__).parents[2]}/"


class _Tracer:
    """Remembers what it has noted, so that each function is noted once a process."""

    def __init__(self, folder: str) -> None:
        with open(os.path.join(folder, "armed"), "rb") as file:
            self._armed = mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ)
        self._notes = os.path.join(folder, str(os.getpid()))
        self._seen: set[CodeType] = set()

    def on_call(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not self._armed[0] or code in self._seen:
            return
        self._seen.add(code)
        path = code.co_filename
        if path.startswith(_ROOT) and path != __file__ and not path.startswith(sys.prefix):
            self._note(f"{path.removeprefix(_ROOT)} {code.co_qualname}")

    def on_audit(self, event: str, _: object) -> None:
        if event == "os.remove" and self._armed[0]:
            self._note("- removal")

    def _note(self, what: str) -> None:
        with open(self._notes, "a") as notes:
            notes.write(f"{time.monotonic_ns()} {what}\n")


_tracer = _Tracer(os.environ["TRACE"])
sys.addaudithook(_tracer.on_audit)
threading.setprofile(_tracer.on_call)
sys.setprofile(_tracer.on_call)
