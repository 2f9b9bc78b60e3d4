"""The log of the embedded server and of initdb: what it says about a start that failed."""

import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO

#: What names a cause, the most telling first. The server says "the database system is starting up" and the
#: like to those who connect; initdb says "error:".
_CAUSES = (
    re.compile(r"PANIC:.*"),
    re.compile(r"FATAL:(?! +the database system is ).*"),
    re.compile(r"(?:initdb|postgres|unshare|sh): .*(?:error|could not|failed|cannot|can't|denied).*"),
    re.compile(r"ERROR:.*|.*No space left on device.*|\w*Error: .*"),
)
_LOG_BYTES = 10_000_000
_MOST_READ = 200_000
_PAGE = 8192


class ServerLog:
    """A log file; what stood there before this start explains nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = path.stat().st_size if path.exists() else 0

    def open(self) -> BinaryIO:
        if self.path.exists() and self.path.stat().st_size > _LOG_BYTES:
            self.path.replace(self.path.with_suffix(".log.1"))
            self._start = 0
        return open(os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")

    def reason(self) -> str:
        """Returns the line of this start that says why it failed, otherwise the last one."""
        with open(self.path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(self._start if self._start <= size else 0, size - _MOST_READ))
            lines = file.read().decode(errors="replace").splitlines()
        for cause in _CAUSES:
            found = [match[0] for line in lines if (match := cause.search(line))]
            if found:
                return " ".join(found[-1].split())
        if not lines and shutil.disk_usage(self.path.parent).free < _PAGE:
            return "No space left on device"  # not even for a line of the log
        return lines[-1] if lines else "it says nothing"
