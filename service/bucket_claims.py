"""The port to what divides a bucket among daemons, and its answer for one that shares it with nobody."""

from typing import Protocol


class Claims(Protocol):
    """The part of a bucket's objects that is of this daemon; db/claims.py divides them by a database."""

    @property
    def ours(self) -> frozenset[int]:
        """The claims as of the last renewal; equal as long as they are of the same objects."""

    def is_ours(self, name: str) -> bool:
        """Returns whether this daemon is to load the object of that name."""

    def renew(self) -> None:
        """Takes its share, and gives up the rest; raises DatabaseUnavailable."""


class Unshared:
    """The claims of one that has all objects of its bucket."""

    @property
    def ours(self) -> frozenset[int]:
        return frozenset()

    def is_ours(self, name: str) -> bool:
        return True

    def renew(self) -> None: ...
