"""The objects at rest in one place of a bucket, as commands look at them, or load them from there."""

from collections.abc import Sequence
from typing import Any, Self

from config import Settings
from processing.batch import FileTask
from processing.errors import Misconfigured
from processing.source import Source
from service.bucket_discovery import Place
from service.drop_bucket import objects
from service.kept_client import KeptClient
from sources.bucket import BucketSource
from sources.bucket_object import first_name, split_name
from sources.bucket_peek import BucketPeek
from sources.policy import BUCKET_SCHEME, BucketEnds, BucketPlace
from sources.s3_client import make_client


class BucketShelf:
    """A part of a bucket: that of waiting or that of failed objects."""

    def __init__(self, client: Any, at: BucketPlace, ends: BucketEnds) -> None:
        self._client = client
        self._ends = ends
        self._is_failed = at.prefix == ends.failed
        self._place = Place(at, []) if self._is_failed else Place.of(at, ends)

    @classmethod
    def of(cls, settings: Settings, at: BucketPlace, client: KeptClient) -> Self:
        return cls(client.get(), at, settings.bucket_ends)

    def __str__(self) -> str:
        return str(self._place.at)

    def names(self) -> Sequence[str]:
        return [found.name for found in objects(self._client, self._place)]

    def chosen(self, given: str) -> Sequence[str]:
        """Takes the name by which the ledger knows a failed object, too; there may be several of it."""
        address = str(self)
        if given.startswith(BUCKET_SCHEME):
            if not given.startswith(address):
                raise Misconfigured(f"{given} is not in {address}")
            given = given.removeprefix(address)
        found = self._like(given)
        return [given] if given in found else found or [given]

    def known_as(self, name: str) -> str:
        return first_name(name) if self._is_failed else name

    def has(self, known_as: str) -> bool:
        return bool(self._like(known_as))

    def task(self, name: str) -> FileTask:
        return FileTask(name)

    def peek(self) -> Source[Any]:
        return BucketPeek(self._client, self._place.at)

    def source(self) -> Source[Any]:
        return BucketSource(self._client, self._place.at, self._ends)

    def put_back(self) -> None: ...

    def _like(self, name: str) -> list[str]:
        """Returns the names of objects that have this name, or are known by it."""
        alike = objects(self._client, self._place, beginning=split_name(name)[0])
        return [found.name for found in alike if name in (found.name, self.known_as(found.name))]


def peek_at(settings: Settings, address: str) -> tuple[Source[Any], BucketPlace, Sequence[str]]:
    """Returns a source that only looks, the place of an address, and the names there that it means.

    An address that ends with a slash means all objects below it.
    """
    bucket, _, key = address.removeprefix(BUCKET_SCHEME).partition("/")
    folder, slash, name = key.rpartition("/")
    at = BucketPlace(bucket, folder + slash)
    client = make_client(settings.s3_endpoint_url)
    names = [name] if name else [found.name for found in objects(client, Place(at, []))]
    if not names:
        raise Misconfigured(f"there is no file below {address}")
    return BucketPeek(client, at), at, names
