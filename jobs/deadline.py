"""The time that an invocation has: its work ends a while before the platform would end it."""

import time


class OutOfTime(Exception):
    """The time of the invocation is used up: what is left is to be delivered again."""


class Deadline:
    """The end of the work of one invocation after another, on the monotonic clock."""

    def __init__(self) -> None:
        self._at = 0.0

    def set(self, at: float) -> None:
        self._at = at

    def left(self) -> float:
        """Returns the seconds that are left; raises OutOfTime if none are."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise OutOfTime("the time of the invocation is used up")
        return left

    def check(self) -> None:
        """Raises OutOfTime if no time is left."""
        self.left()
