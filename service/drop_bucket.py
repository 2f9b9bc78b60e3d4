"""The objects that wait in a bucket, as any process sees them: how many, and the oldest."""

import heapq
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from msgspec import Struct

from processing.errors import Misconfigured
from service.bucket_discovery import Place
from sources.s3_client import ClientError, code_of, translated

#: Parts of a listing that are looked at; of a larger bucket only the first 100,000 objects are counted.
_MOST_PAGES = 100


class Object(Struct, frozen=True, order=True):
    """An object that waits; the older one is the greater."""

    seconds: float
    name: str
    bytes: int


class Found(Struct, frozen=True):
    """The objects that wait, the oldest by themselves."""

    files: int
    bytes: int
    oldest: list[Object]


def count(client: Any, place: Place, most: int) -> Found:
    """Counts what waits, with up to `most` of the oldest; raises SourceUnavailable or Misconfigured."""
    files = size = 0
    oldest: list[Object] = []
    for found in objects(client, place, _MOST_PAGES):
        files, size = files + 1, size + found.bytes
        heapq.heappush(oldest, found)
        if len(oldest) > most:
            heapq.heappop(oldest)
    return Found(files, size, sorted(oldest, reverse=True))


def objects(client: Any, place: Place, pages: int | None = None, beginning: str = "") -> Iterator[Object]:
    """Yields each object that is to be loaded and whose name begins so, of the first pages or of all.

    Raises SourceUnavailable or Misconfigured.
    """
    at, now = place.at, time.time()
    listing = client.get_paginator("list_objects_v2").paginate(Bucket=at.bucket, Prefix=at.prefix + beginning)
    try:
        with translated():
            for page in islice(listing, pages):
                for entry in page.get("Contents", []):
                    if place.wanted(entry["Key"]):
                        name = entry["Key"][len(at.prefix) :]
                        yield Object(now - entry["LastModified"].timestamp(), name, entry["Size"])
    except ClientError as error:
        raise Misconfigured(f"can't list {at}: the server answers {code_of(error)}") from None
