"""Steps that are taken at once, by threads: each waits for the network, which takes longer than its work."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

#: Requests under way at a time; each has a connection of its own.
THREADS = 16

T = TypeVar("T")
R = TypeVar("R")


class AtOnce:
    """A few threads, started when they are first needed."""

    def __init__(self, threads: int = THREADS) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="requests")

    def __call__(self, step: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Takes the step with each item; after an error begins no more, and raises the first."""
        if len(items) == 1:
            return [step(items[0])]
        futures: list[Future[R]] = []
        try:
            for item in items:
                futures.append(self._threads.submit(step, item))
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            for future in futures:
                future.cancel()
            wait(futures)  # nothing may go on behind the caller's back
        return [future.result() for future in futures]
