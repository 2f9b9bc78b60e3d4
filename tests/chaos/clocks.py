"""Sets the wall clock of a daemon while it runs."""

import struct
from pathlib import Path

#: The folder of the module that changes the clock of a Python process.
_FOLDER = Path(__file__).parent / "clock"


class Clock:
    """A wall clock that is right at first. (The clock of a producer shows only in the times of its files.)"""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._file.write_bytes(bytes(8))

    def environment(self) -> dict[str, str]:
        """Returns the environment that makes a Python process use this clock."""
        return {"PYTHONPATH": str(_FOLDER), "CLOCK": str(self._file)}

    def set(self, seconds: float) -> None:
        """Sets the difference to the real clock; writes in place, because processes have mapped the file."""
        with open(self._file, "r+b") as file:
            file.write(struct.pack("d", seconds))
