"""Shows at a terminal what the daemon does: log lines that scroll, and below them the present state."""

import io
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Protocol

from rich.console import Console, RenderableType

from monitor.event_log import SILENT, EventLog, Line
from monitor.screen import Screen
from service.events import Event

LIVE_VIEW_ENDED = "live view ended"

#: The time between two pictures.
_TURN_SECONDS = 0.25

#: How long the end of the program waits for a terminal that takes nothing.
_LAST_SECONDS = 1.0

#: Lines that wait while the terminal takes nothing; beyond it, the oldest are dropped.
_MOST_LINES = 10_000

#: The columns and rows that a panel needs.
_LEAST_COLUMNS, _LEAST_ROWS = 20, 6


class Show(Protocol):
    """The subject of a terminal: the files of a daemon, or the messages of a consumer."""

    def take(self, event: Event, at: float) -> None:
        """Takes an event into the state."""

    def lines(self, taken: Sequence[tuple[float, Event | Line]], now: float) -> Iterable[RenderableType]:
        """Returns the lines that scroll, of what came since the last turn."""

    def rest(self, now: float) -> Iterable[RenderableType]:
        """Returns the lines that are not yet told."""

    def view(self, now: float) -> object:
        """Returns the state: as long as it is equal, nothing is drawn."""

    def panel(self, view: Any, width: int) -> RenderableType:
        """Returns the panel that stays below the lines, at most so many columns wide."""


class Terminal:
    """The subscriber that shows events. Its thread draws; an error there ends the view, and only that."""

    def __init__(self, screen: Screen, event_log: EventLog, show: Show) -> None:
        """Takes the event log for what comes after the end of the view."""
        self.has_written = False
        self._screen = screen
        self._event_log = event_log
        self._what = show
        self._taken: deque[tuple[float, Event | Line]] = deque()
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._shown: tuple[object, tuple[int, int], bool] | None = None
        self._is_off = False
        self._closing = threading.Event()
        self._drawing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="terminal", daemon=True)
        self._console = _console()

    def write(self, event: Event) -> None:
        """Takes an event, and never waits."""
        self.has_written = self.has_written or not isinstance(event, SILENT)
        self._take(event)

    def warning(self, name: str, **fields: Any) -> None:
        """Takes a line that no event has, such as a warning of a library."""
        self._take(("warning", name, fields))

    def start(self) -> None:
        """Begins to draw; raises RuntimeError if the system has no thread for it."""
        self._thread.start()

    def close(self) -> None:
        """Draws what is left, and leaves a clean screen."""
        self._closing.set()
        self._thread.join(2 * _TURN_SECONDS)
        if not self._is_off:
            with self._drawing, self._survived():
                self._screen.is_ready(_LAST_SECONDS)
                self._turn(is_last=True)
        with suppress(OSError):
            self._screen.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Draws nothing within the block, and leaves a clean screen to others."""
        # Called by a handler of signals: what it interrupts in this thread holds no lock of ours.
        is_held = self._drawing.acquire(timeout=2 * _TURN_SECONDS)
        try:
            with self._survived():
                self._screen.hide()
                self._shown = None
            yield
        finally:
            if is_held:
                self._drawing.release()

    def _take(self, event: Event | Line) -> None:
        self._taken.append((time.time(), event))
        if self._is_off:
            self._pass_on()

    def _pass_on(self) -> None:
        with suppress(IndexError):
            while True:
                _, event = self._taken.popleft()
                if isinstance(event, tuple):
                    self._event_log.write_line(event)
                else:
                    self._event_log.write(event)

    def _run(self) -> None:
        while not self._is_off and not self._closing.wait(_TURN_SECONDS):
            with self._drawing, self._survived():
                self._turn()

    @contextmanager
    def _survived(self) -> Iterator[None]:
        """Ends the view at any error within the block: loading goes on without it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            self._is_off = True
            with suppress(Exception):
                self._screen.hide()
            reason = f"{type(error).__name__}: {error}"
            self._event_log.write_line(("warning", LIVE_VIEW_ENDED, {"reason": reason}))
            self._pass_on()

    def _turn(self, *, is_last: bool = False) -> None:
        taken = [self._taken.popleft() for _ in range(len(self._taken))]
        try:
            self._show(taken, time.time(), is_last=is_last)
        except Exception:
            self._taken.extendleft(reversed(taken))  # nobody has seen them
            raise

    def _show(self, taken: list[tuple[float, Event | Line]], now: float, *, is_last: bool) -> None:
        for at, event in taken:
            if not isinstance(event, tuple):
                self._what.take(event, at)
        self._lines.extend(self._render(line) for line in self._what.lines(taken, now))
        if is_last:
            self._lines.extend(self._render(line) for line in self._what.rest(now))
        if not self._screen.is_ready():
            return
        view, size = self._what.view(now), self._screen.size()
        is_shown = self.has_written and not is_last and self._screen.is_ours()
        if self._lines or (view, size, is_shown) != self._shown:
            self._screen.draw(list(self._lines), self._panel(view, *size) if is_shown else [])
            self._lines.clear()
            self._shown = view, size, is_shown

    def _panel(self, view: object, columns: int, rows: int) -> list[str]:
        """Returns the panel's lines, of which the first are the most important; none if there is no room."""
        if columns < _LEAST_COLUMNS or rows < _LEAST_ROWS:
            return []
        # One column less: a terminal that is written full holds its cursor back in the last one.
        return self._render(self._what.panel(view, columns - 1), columns - 1).split("\n")[: rows - 2]

    def _render(self, what: RenderableType, width: int | None = None) -> str:
        if width is not None:
            self._console.width = width
        with self._console.capture() as captured:
            self._console.print(what, soft_wrap=width is None)
        return captured.get().removesuffix("\n")


def _console() -> Console:
    """Returns a console that renders for this terminal's colours, and writes nothing by itself."""
    return Console(
        file=io.StringIO(), force_terminal=True, highlight=False, markup=False, emoji=False, width=80
    )


def can_show() -> bool:
    """Returns whether the terminal can show more than lines: its characters, and a cursor that moves."""
    encoding = getattr(sys.stderr, "encoding", None) or ""
    return encoding.lower().startswith("utf") and not _console().is_dumb_terminal


@contextmanager
def open_terminal(fd: int, event_log: EventLog, show: Show) -> Iterator[Terminal | None]:
    """Yields the view at the terminal of the descriptor while it lasts; None if there can be none."""
    try:
        if not can_show():
            raise OSError
        terminal = Terminal(Screen(fd), event_log, show)
        terminal.start()
    except (OSError, RuntimeError):
        yield None
        return
    try:
        with _hidden_while_stopped(terminal):
            yield terminal
    finally:
        terminal.close()


@contextmanager
def _hidden_while_stopped(terminal: Terminal) -> Iterator[None]:
    """Leaves a clean screen to the shell after Ctrl+Z."""

    def stop(number: int, frame: FrameType | None) -> None:
        with terminal.paused():
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTSTP)  # returns after SIGCONT
            signal.signal(signal.SIGTSTP, stop)

    old = signal.getsignal(signal.SIGTSTP)
    if old is signal.SIG_DFL:
        signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, old)
