"""Handles Ctrl+C, SIGTERM and SIGHUP: the first asks the program to stop, the second ends it at once."""

import os
import signal
import threading
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """An event that a signal sets; `wake` is then called in another thread."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.wake: Callable[[], None] = lambda: None
        self._asked = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        signals = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            signals.append(signal.SIGHUP)
        old = [signal.signal(number, self._ask) for number in signals]
        try:
            yield
        finally:
            for number, handler in zip(signals, old, strict=True):
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            if number == signal.SIGHUP:
                return  # a terminal that is closed may send several
            os._exit(128 + number)  # open transactions roll back, and their files stay
        self._asked = True
        # In another thread, because the code that this signal interrupts may hold the event's lock.
        start_new_thread(self.ask, ())

    def ask(self) -> None:
        """Asks the program to stop, as the first signal does."""
        self.event.set()
        self.wake()
