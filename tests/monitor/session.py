"""A person at a terminal: a shell in a real pty, and an emulator that shows what is on its screen."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyte

from tests.support import ROOT, until

PROMPT = "shell>"
MAIN = f"{sys.executable} {ROOT / 'main.py'}"


class Session:
    """The screen, as lines of text, and the keyboard."""

    def __init__(self, folder: Path, environment: Mapping[str, str], columns: int, rows: int) -> None:
        self._screen = pyte.HistoryScreen(columns, rows, history=20_000, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._keyboard, theirs = pty.openpty()
        self.raw = b""
        self._set_size(columns, rows)
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            cwd=folder,
            env={**environment, "LANG": "C.UTF-8", "PS1": f"{PROMPT} "},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=_own_terminal,
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.until_shown(PROMPT)
        self.modes_at_prompt = self.modes()

    def type(self, text: str) -> None:
        os.write(self._keyboard, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        with self._lock:
            self._screen.resize(rows, columns)
            self._set_size(columns, rows)

    def lines(self) -> list[str]:
        """What is on the screen now, without the empty lines at its end."""
        with self._lock:
            shown = [line.rstrip() for line in self._screen.display]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    @property
    def columns(self) -> int:
        return int(self._screen.columns)

    def cells(self) -> list[list[Any]]:
        """The characters on the screen with their colours."""
        with self._lock:
            rows = range(self._screen.lines)
            return [[self._screen.buffer[row][column] for column in range(self.columns)] for row in rows]

    def all_lines(self) -> list[str]:
        """What has left the screen at its top, too."""
        with self._lock:
            gone = [
                "".join(line[column].data for column in range(self._screen.columns)).rstrip()
                for line in self._screen.history.top
            ]
        return gone + self.lines()

    def text(self) -> str:
        return "\n".join(self.all_lines())

    def is_cursor_hidden(self) -> bool:
        with self._lock:
            return bool(self._screen.cursor.hidden)

    def until_shown(self, text: str, seconds: float = 20.0) -> None:
        until(lambda: text in self.text(), seconds, f"{text!r} on the screen")

    def until_prompt(self, seconds: float = 20.0) -> None:
        """Waits until the shell asks for the next command."""
        until(lambda: self.lines() and self.lines()[-1] == PROMPT, seconds, "the prompt")

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._keyboard)

    def end(self) -> None:
        for process in [*psutil.Process(self._shell.pid).children(recursive=True), self._shell]:
            process.kill()
        self._shell.wait()
        os.close(self._keyboard)

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._keyboard, 65_536)
            except OSError:  # the shell is gone
                return
            with self._lock:
                self.raw += data
                self._stream.feed(data)


def _own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def session(
    folder: Path, environment: Mapping[str, str], columns: int = 100, rows: int = 30
) -> Iterator[Session]:
    folder.mkdir(exist_ok=True)
    at_terminal = Session(folder, environment, columns, rows)
    try:
        yield at_terminal
    finally:
        at_terminal.end()
