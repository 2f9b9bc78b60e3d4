"""Finds the objects of a bucket: lists it part by part, over and over; the listing is the queue."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any, Protocol

from msgspec import Struct

import watcher.scan
from processing.errors import DatabaseUnavailable, Misconfigured, SourceUnavailable
from service.bucket_claims import Claims
from service.fault import describe
from service.inbox import PageListed, ScanWanted
from sources.bucket_object import BucketIdentity
from sources.policy import BucketEnds, BucketPlace
from sources.s3_client import ClientError, code_of, not_listed, status_of, translated

#: A name that no object has: a conditional request about it shows whether the server heeds conditions.
_NOBODY = ".mobileye-no-such-object"

#: The pause between two renewals of the claims: the server ends a silent connection after four of them.
_RENEW_SECONDS = 5.0

_STALE_CURSOR = "InvalidArgument"


class Place(Struct, frozen=True):
    """The place that is listed, and the prefixes in it that objects end in."""

    at: BucketPlace
    own: Sequence[str]

    @classmethod
    def of(cls, at: BucketPlace, ends: BucketEnds) -> "Place":
        return cls(at, [prefix for prefix in (ends.failed, ends.archive) if prefix])

    def wanted(self, key: str) -> bool:
        """Returns whether an object is to be loaded: a folder's marker, what is ours, and others are not."""
        return watcher.scan.is_wanted(key.rpartition("/")[2]) and not key.startswith(tuple(self.own))


class Listener(Protocol):
    """Hears of new objects, and wakes whoever lists."""

    def start(self, on_arrival: Callable[[], None]) -> None:
        """Begins to listen if it does not yet; calls on_arrival, from another thread."""

    def stop(self) -> None:
        """Listens no more."""


class BucketDiscovery:
    """Lists one part at each call, in a thread of its own: the daemon never waits for the network."""

    def __init__(
        self,
        client: Any,
        place: Place,
        claims: Claims,
        notify: Callable[[PageListed | ScanWanted], None],
        listener: Listener | None = None,
    ) -> None:
        """Asks nothing yet; notify gets each part, from another thread, and the wish for the next one."""
        self._client = client
        self._claims = claims
        self._renewing = Lock()
        self._is_over = Event()
        self._keeper: Thread | None = None
        self._place = place
        self._notify = notify
        self._listener = listener
        self._cursor: str | None = None
        self._is_busy = False
        self._is_wanted = False  # once more from the beginning: something arrived where it may have listed
        self._is_checked = False
        self._is_whole = False
        self._ours: frozenset[int] | None = None  # the claims of the last page

    def observe(self) -> None:
        if self._listener is not None:
            self._listener.start(self._want)

    def scan(self) -> None:
        """Begins to list the next part, unless it does already; behind the last one comes the first again."""
        if self._is_busy:
            return
        self._is_busy = True
        try:
            if self._keeper is None:
                self._keeper = Thread(target=self._keep, name="claims of the bucket", daemon=True)
                self._keeper.start()
            Thread(target=self._list, name="listing of the bucket", daemon=True).start()
        except RuntimeError as error:
            self._is_busy = False
            self._notify(PageListed({}, error=SourceUnavailable(f"the system has no thread: {error}")))

    def size_of(self, name: str) -> int:
        """Returns 0: the listing has told the size of each object that it found."""
        return 0

    def is_ours(self, name: str) -> bool:
        """Returns whether no other daemon is to load the object."""
        return self._claims.is_ours(name)

    def put_back(self) -> None: ...

    def left(self, waiting: int) -> int:
        """Returns what waits; at least one object if not all could be listed."""
        return waiting if self._is_whole else max(1, waiting)

    def stop(self) -> None:
        """Lists no more; the claims end with the process, after its last batch."""
        self._is_over.set()
        if self._listener is not None:
            self._listener.stop()

    def _want(self) -> None:
        """Asks for a listing that begins after this call, at once or behind the one that is under way."""
        self._is_wanted = True
        self._notify(ScanWanted())

    def _keep(self) -> None:
        """Renews the claims while the listing pauses; what fails here, the listing meets, too."""
        while not self._is_over.wait(_RENEW_SECONDS):
            with suppress(DatabaseUnavailable, Misconfigured):
                if self._gains():
                    self._want()  # the pause may be long, and nobody else loads these objects

    def _gains(self) -> bool:
        """Renews the claims; returns whether objects are to be loaded from here that were not before."""
        with self._renewing:
            before = self._claims.ours
            self._claims.renew()
            return not self._claims.ours <= before

    def _list(self) -> None:
        try:
            if self._gains():
                self._is_wanted = True  # they may be in parts that were listed already
            page = self._next_page()
        except (SourceUnavailable, DatabaseUnavailable, Misconfigured) as error:
            page = PageListed({}, error=error)
        except Exception as error:  # noqa: BLE001  # else nothing would ever be listed again
            page = PageListed({}, error=SourceUnavailable(f"it can't be listed: {describe(error)}"))
        self._is_busy = False
        self._is_whole = self._is_whole or page.is_last
        self._notify(page)
        if page.is_last and self._is_wanted:  # whoever asked meanwhile found this one busy
            self._notify(ScanWanted())

    def _next_page(self) -> PageListed:
        at, began = self._place.at, time.monotonic()
        if self._cursor is None:
            self._is_wanted = False
        more = {"ContinuationToken": self._cursor} if self._cursor else {}
        try:
            with translated():
                self._check_conditions()
                answer = self._client.list_objects_v2(Bucket=at.bucket, Prefix=at.prefix, **more)
        except ClientError as error:
            if self._cursor and code_of(error) == _STALE_CURSOR:
                self._cursor = None
                return PageListed({})
            raise not_listed(at, error) from None
        self._cursor = _next_cursor(answer, self._cursor)
        entries = [entry for entry in answer.get("Contents", []) if self._place.wanted(entry["Key"])]
        names = [entry["Key"][len(at.prefix) :] for entry in entries]
        found = {
            name: BucketIdentity(entry.get("ETag", ""), entry.get("Size", 0))
            for name, entry in zip(names, entries, strict=True)
            if self._claims.is_ours(name)
        }
        before, self._ours = self._ours, self._claims.ours
        return PageListed(found, began, is_last=self._cursor is None, has_moved=self._ours != before)

    def _check_conditions(self) -> None:
        """Raises Misconfigured if the server deletes whatever the condition: also what was not read."""
        if self._is_checked:
            return
        try:
            self._client.delete_object(
                Bucket=self._place.at.bucket, Key=self._place.at.prefix + _NOBODY, IfMatch='"0"'
            )
        except ClientError as error:
            if status_of(error) not in (403, 404, 412):  # a right that is missing shows with each object
                raise
        else:
            raise Misconfigured(
                "the server takes no notice of conditions (If-Match) when it deletes an object: "
                "one that was replaced while it was read would be lost"
            )
        self._is_checked = True


def _next_cursor(answer: dict[str, Any], cursor: str | None) -> str | None:
    """Returns where the next part begins; None behind the last one, and where the server does not get on."""
    following: str | None = answer.get("NextContinuationToken")
    return following if answer.get("IsTruncated", True) and following != cursor else None
