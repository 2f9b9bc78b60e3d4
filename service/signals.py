"""Handles Ctrl+C, SIGTERM and SIGHUP: the first asks the program to stop, the second ends it at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType


class StopSignal:
    """An event that a signal sets; `wake` is then called in another thread."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.wake: Callable[[], None] = lambda: None
        self._asked = False
        self._stops: SimpleQueue[bool] = SimpleQueue()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Handles the signals within the block; raises OSError if the system has no thread for it."""
        try:
            threading.Thread(target=self._wait, name="signals", daemon=True).start()
        except RuntimeError as error:
            raise OSError(f"the system has no thread for the program: {error}") from None
        signals = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            signals.append(signal.SIGHUP)
        old = [signal.signal(number, self._ask) for number in signals]
        try:
            yield
        finally:
            for number, handler in zip(signals, old, strict=True):
                signal.signal(number, handler)
            self._stops.put(False)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            if number == signal.SIGHUP:
                return  # a terminal that is closed may send several
            os._exit(128 + number)  # open transactions roll back, and their files stay
        self._asked = True
        self.ask()

    def ask(self) -> None:
        """Asks the program to stop, as the first signal does."""
        self._stops.put(True)  # may interrupt itself, which event.set() may not

    def _wait(self) -> None:
        """Runs in a thread of its own: the code that a signal interrupts may hold the event's lock."""
        if self._stops.get():
            self.event.set()
            self.wake()
