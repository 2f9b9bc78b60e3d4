"""What finds the objects of a bucket, with a client that lists what a test says, when it says so."""

import queue
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from service.bucket_claims import Unshared
from service.bucket_discovery import BucketDiscovery, Place
from service.inbox import PageListed, ScanWanted
from sources.policy import BucketPlace

_PLACE = Place(BucketPlace("bucket", "in/"), [])
_PAGE_SIZE = 2


class Client:
    """A bucket that grows while it is listed: before and behind the moment at which the server looks."""

    def __init__(self, keys: set[str]) -> None:
        self.keys = keys
        self.requests = 0
        self.on_request: Callable[[int, bool], None] = lambda number, is_behind: None

    def delete_object(self, **_: Any) -> None:
        missing = {"Error": {"Code": "NoSuchKey"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
        raise ClientError(missing, "DeleteObject")

    def list_objects_v2(self, *, ContinuationToken: str = "", **_: Any) -> dict[str, Any]:
        number, self.requests = self.requests, self.requests + 1
        self.on_request(number, False)
        keys = sorted(self.keys)
        start = bisect_right(keys, ContinuationToken)
        page, has_more = keys[start : start + _PAGE_SIZE], len(keys) > start + _PAGE_SIZE
        self.on_request(number, True)
        token = {"NextContinuationToken": page[-1]} if has_more else {}
        return {"IsTruncated": has_more, "Contents": [{"Key": k, "Size": 1} for k in page], **token}


class Wakes:
    """A listener that a test makes hear."""

    def start(self, on_arrival: Callable[[], None]) -> None:
        self.on_arrival = on_arrival

    def stop(self) -> None: ...


class Listing:
    """The daemon's side, which never lists by the clock: what it finds, it finds because it was woken."""

    def __init__(self, client: Client) -> None:
        self._inbox: queue.Queue[PageListed | ScanWanted] = queue.Queue()
        self.listener = Wakes()
        self.discovery = BucketDiscovery(client, _PLACE, Unshared(), self._inbox.put, self.listener)
        self.found: set[str] = set()
        self.errors: list[Exception] = []

    def hear(self) -> None:
        """Lets the listener tell that something arrived, and the daemon hear it, while it may be listing."""
        self.listener.on_arrival()
        self._inbox.join()

    def run(self) -> None:
        """Lists as the daemon does, until nothing more is asked for."""
        self.discovery.observe()
        self.discovery.scan()
        while True:
            try:
                message = self._inbox.get_nowait()
            except queue.Empty:
                if not _is_listing() and self._inbox.empty():
                    return
                continue
            if isinstance(message, PageListed):
                self.found |= message.found.keys()
                if message.error is not None:
                    self.errors.append(message.error)
                    self._inbox.task_done()
                    return
            if isinstance(message, ScanWanted) or not message.is_last:
                self.discovery.scan()
            self._inbox.task_done()


def _is_listing() -> bool:
    return any(thread.name == "listing of the bucket" for thread in threading.enumerate())


@contextmanager
def listing_of(client: Client) -> Iterator[Listing]:
    listing = Listing(client)
    try:
        yield listing
    finally:
        listing.discovery.stop()


_keys = st.sampled_from([f"in/{letter}.json" for letter in "abcdefgh"])


@given(st.sets(_keys), st.lists(st.tuples(st.integers(0, 5), st.booleans(), _keys), max_size=5))
def test_what_arrives_while_a_bucket_is_listed_is_found_without_waiting_for_the_next_time(
    keys: set[str], arrivals: list[tuple[int, bool, str]]
) -> None:
    client = Client(set(keys))
    with listing_of(client) as listing:

        def arrive(number: int, is_behind: bool) -> None:
            for key in [key for at, behind, key in arrivals if (at, behind) == (number, is_behind)]:
                client.keys.add(key)
                listing.hear()

        client.on_request = arrive
        listing.run()
    assert listing.found == {key.removeprefix("in/") for key in client.keys}


def test_many_notifications_during_a_listing_make_one_more() -> None:
    client = Client({"in/a.json"})
    with listing_of(client) as listing:

        def arrive(number: int, is_behind: bool) -> None:
            if number == 0:
                for _ in range(10):
                    listing.hear()

        client.on_request = arrive
        listing.run()
    assert client.requests == 2


@pytest.mark.parametrize(
    ("odd", "found"),
    [
        ({"IsTruncated": True, "NextContinuationToken": "again"}, {"a.json"}),
        ({"IsTruncated": True}, {"a.json"}),
        ({}, {"a.json"}),
    ],
)
def test_a_listing_that_does_not_get_on_ends(odd: dict[str, Any], found: set[str]) -> None:
    client = Client(set())
    asked = []

    def list_objects_v2(**arguments: Any) -> dict[str, Any]:
        asked.append(arguments)
        return {"Contents": [{"Key": "in/a.json"}], **odd}

    client.list_objects_v2 = list_objects_v2  # type: ignore[method-assign]
    with listing_of(client) as listing:
        listing.run()
    assert listing.found == found and listing.errors == [] and len(asked) <= 2


def test_a_listing_that_fails_in_the_middle_goes_on_where_it_was() -> None:
    client = Client({f"in/{letter}.json" for letter in "abcdef"})

    def fail(number: int, is_behind: bool) -> None:
        if number == 1 and not is_behind:
            expired = {"Error": {"Code": "ExpiredToken"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
            raise ClientError(expired, "ListObjectsV2")

    client.on_request = fail
    with listing_of(client) as listing:
        listing.run()
        assert len(listing.errors) == 1 and "the credentials have expired" in str(listing.errors[0])
        listing.run()
    assert len(listing.found) == 6 and client.requests == 4


def test_a_fault_of_a_listing_is_an_error_and_not_the_end_of_all_listings() -> None:
    client = Client({"in/a.json"})

    def fail(number: int, is_behind: bool) -> None:
        if number == 0:
            raise ZeroDivisionError

    client.on_request = fail
    with listing_of(client) as listing:
        listing.run()
        assert "ZeroDivisionError" in str(listing.errors[0])
        listing.run()
    assert listing.found == {"a.json"}
