"""Writes lines in a thread of its own, so that a stalled reader holds up nothing else."""

import os
import select
import sys
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from threading import Condition, Thread

#: The lines that wait for their reader; beyond it, the oldest are dropped.
MOST_LINES = 10_000


class LineWriter:
    """The writer of a descriptor, such as standard error: a terminal, a pipe, a socket or a file.

    write() never waits. Lines keep their order. Lines that are dropped, because nobody reads or the disk is
    full, are counted, and the line of on_dropped() says so as soon as there is room for it.
    """

    def __init__(self, fd: int, on_dropped: Callable[[int], str], most: int = MOST_LINES) -> None:
        self._fd = fd
        self._on_dropped = on_dropped
        self._most = most
        self._changed = Condition()
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._thread: Thread | None = None
        self._is_writing = False
        self._is_line_open = False  # after a write that failed within a line
        self._room = select.poll()
        self._room.register(fd, select.POLLOUT)

    def write(self, line: str) -> None:
        """Takes a line, without its end, to be written at once if no other waits."""
        with self._changed:
            self._lines.append(line)
            if len(self._lines) > self._most:
                # Not the new one: the last words of a program are worth more than the first.
                self._lines.popleft()
                self._dropped += 1
            if self._thread is None and not self._start():
                self._write_unthreaded()
            self._changed.notify()

    def close(self, seconds: float) -> None:
        """Gives the reader this time to take what is queued; the rest is lost."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._is_writing, seconds)

    def _start(self) -> bool:
        """Returns false if the system has no thread now; the next line tries again."""
        thread = Thread(target=self._run, name="log", daemon=True)
        with suppress(RuntimeError):
            thread.start()
            self._thread = thread
        return self._thread is not None

    def _write_unthreaded(self) -> None:
        while self._lines and self._room.poll(0):
            self._write([self._lines.popleft()], self._dropped)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines)
                self._is_writing = True
                lines, self._lines = self._lines, deque()
                dropped = self._dropped
            self._write(lines, dropped)

    def _write(self, lines: Collection[str], dropped: int) -> None:
        """Writes all of the lines together, behind the one that says how many were dropped before them."""
        is_said = dropped > 0 and self._put([self._on_dropped(dropped)]) > 0
        lost = len(lines) - self._put(lines)
        with self._changed:
            self._dropped += lost - (dropped if is_said else 0)

    def _put(self, lines: Collection[str]) -> int:
        """Returns how many of the lines were written whole."""
        first = "\n" if self._is_line_open else ""
        data = (first + "".join(f"{line}\n" for line in lines)).encode("utf-8", "backslashreplace")
        written = 0
        with suppress(OSError):  # a full disk, a closed terminal
            while written < len(data):
                written += self._put_some(memoryview(data)[written:])
        if written:
            self._is_line_open = not data[:written].endswith(b"\n")
        return max(0, data[:written].count(b"\n") - len(first))

    def _put_some(self, data: memoryview) -> int:
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:  # another program has made the terminal or pipe so for all who share it
                self._room.poll()


def standard_error() -> int | None:
    """Returns the descriptor of standard error, or of nothing if the program was started without one.

    None if standard error is no file of the system, as in a test.
    """
    if sys.stderr is None:
        return os.open(os.devnull, os.O_WRONLY)
    try:
        return sys.stderr.fileno()
    except OSError:
        return None


def terminal_of_errors() -> int | None:
    """Returns the descriptor of standard error if it is a terminal."""
    try:
        return sys.stderr.fileno() if sys.stderr is not None and sys.stderr.isatty() else None
    except OSError:
        return None
