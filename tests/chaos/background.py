"""Runs work in a thread for the duration of a block."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread


@contextmanager
def beside(work: Callable[[Event], None]) -> Iterator[None]:
    """Runs the work in a thread; at the end of the block sets its event, upon which it must end."""
    stop = Event()
    thread = Thread(target=work, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
