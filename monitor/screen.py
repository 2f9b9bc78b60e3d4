"""The lower end of a terminal: lines scroll, and a panel stays below them."""

import os
import select
import time
from collections.abc import Sequence
from contextlib import suppress

#: The longest that a terminal is waited for; after Ctrl+S it takes nothing.
_PATIENCE_SECONDS = 0.1

_ERASE_BELOW, _ERASE_REST_OF_LINE = "\x1b[J", "\x1b[K"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Screen:
    """Draws on a terminal through a descriptor of its own, which never waits for long.

    The cursor rests at the beginning of the panel. So nothing has to be known of what the terminal did to it
    meanwhile: after a change of its size, or output of other programs, the next panel is drawn from there.
    """

    def __init__(self, fd: int) -> None:
        """Opens the terminal of a descriptor; raises OSError if it is none, or can't be opened."""
        self._fd = os.open(os.ttyname(fd), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        self._pending = b""
        self._is_panel_shown = False
        self._room = select.poll()
        self._room.register(self._fd, select.POLLOUT)

    def size(self) -> tuple[int, int]:
        """Returns columns and rows."""
        return os.get_terminal_size(self._fd)

    def is_ours(self) -> bool:
        """Returns false while another job of the shell is in the foreground."""
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:  # it is no job of a shell
            return True

    def is_ready(self, seconds: float = _PATIENCE_SECONDS) -> bool:
        """Returns whether the terminal has taken all that was drawn; waits for it so long."""
        return self._flush(seconds)

    def draw(self, lines: Sequence[str], panel: Sequence[str]) -> None:
        """Prints lines above the panel, and draws the panel anew; without one the cursor is shown."""
        parts = []
        if lines or self._is_panel_shown > bool(panel):
            parts.append("\r" + _ERASE_BELOW)
        parts += [f"{line}\r\n" for line in lines]
        if panel:
            rows = "\r\n".join(row + _ERASE_REST_OF_LINE for row in panel)
            up = f"\x1b[{len(panel) - 1}A" if len(panel) > 1 else ""
            parts.append(f"\r{_HIDE_CURSOR}{rows}{_ERASE_BELOW}\r{up}")
        elif self._is_panel_shown:
            parts.append(_SHOW_CURSOR)
        self._is_panel_shown = bool(panel)
        self._pending += "".join(parts).encode()
        self._flush()

    def hide(self) -> None:
        """Removes the panel and shows the cursor."""
        self.draw([], [])

    def close(self) -> None:
        self.hide()
        with suppress(OSError):
            os.close(self._fd)

    def _flush(self, seconds: float = _PATIENCE_SECONDS) -> bool:
        deadline = time.monotonic() + seconds
        while self._pending:
            try:
                written = os.write(self._fd, self._pending)
                self._pending = self._pending[written:]
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._room.poll(1000 * left)
        return True
