"""The objects that wait in a bucket, as any process sees them: how many, and the oldest."""

import heapq
import time
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from msgspec import Struct

from service.bucket_discovery import Place
from sources.s3_client import ClientError, not_listed, translated

#: Parts of a listing that are looked at; of a larger bucket the first 100,000 objects are counted.
_MOST_PAGES = 100


class Object(Struct, frozen=True, order=True):
    """An object that waits; the older one is the greater."""

    seconds: float
    name: str
    bytes: int


class Found(Struct, frozen=True):
    """The objects that wait, the oldest by themselves; has_more: not all of the bucket was looked at."""

    files: int
    bytes: int
    oldest: list[Object]
    has_more: bool


def count(client: Any, place: Place, most: int, most_pages: int = _MOST_PAGES) -> Found:
    """Counts what waits, with up to `most` of the oldest; raises SourceUnavailable or Misconfigured."""
    files = size = 0
    oldest: list[Object] = []
    pages = _pages(client, place, "")
    for found in chain.from_iterable(islice(pages, most_pages)):
        files, size = files + 1, size + found.bytes
        heapq.heappush(oldest, found)
        if len(oldest) > most:
            heapq.heappop(oldest)
    return Found(files, size, sorted(oldest, reverse=True), has_more=next(pages, None) is not None)


def objects(client: Any, place: Place, beginning: str = "") -> Iterator[Object]:
    """Yields each object that is to be loaded and whose name begins so.

    Raises SourceUnavailable or Misconfigured.
    """
    return chain.from_iterable(_pages(client, place, beginning))


def _pages(client: Any, place: Place, beginning: str) -> Iterator[list[Object]]:
    at, now, start = place.at, time.time(), len(place.at.prefix)
    listing = client.get_paginator("list_objects_v2").paginate(Bucket=at.bucket, Prefix=at.prefix + beginning)
    try:
        with translated():
            for page in listing:
                yield [
                    Object(now - entry["LastModified"].timestamp(), entry["Key"][start:], entry["Size"])
                    for entry in page.get("Contents", [])
                    if place.wanted(entry["Key"])
                ]
    except ClientError as error:
        raise not_listed(at, error) from None
