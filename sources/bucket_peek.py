"""A bucket whose objects are only looked at: none is disposed of."""

from contextlib import AbstractContextManager
from typing import Any

from sources.bucket import BucketSource
from sources.bucket_object import BucketObject
from sources.policy import BUCKET_SCHEME, BucketEnds, BucketPlace, OnLoaded


class BucketPeek:
    """Opens the objects of one place as a daemon would, with the same errors; leaves each as it is."""

    def __init__(self, client: Any, place: BucketPlace) -> None:
        self._place = place
        self._source = BucketSource(client, place, BucketEnds("", "", OnLoaded.DELETE))

    def open(self, name: str) -> AbstractContextManager[BucketObject]:
        return self._source.open(name)

    def complete(self, file: BucketObject) -> None: ...

    def quarantine(self, file: BucketObject, reason: str) -> str:
        return f"{BUCKET_SCHEME}{self._place.bucket}/{file.key}"

    def quarantine_unopened(self, name: str, reason: str) -> str:
        return f"{self._place}{name}"

    def tidy(self) -> None: ...

    def close(self) -> None: ...
