"""Steps that are taken with each of several files: in turn, or at once by whoever implements the port."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Each(Protocol):
    """Takes a step with each item; returns the results in their order once no step is under way."""

    def __call__(self, step: Callable[[T], R], items: Sequence[T]) -> list[R]: ...


def in_turn(step: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Takes one step after the other."""
    return [step(item) for item in items]
