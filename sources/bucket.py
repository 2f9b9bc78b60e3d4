"""A bucket as a source: each object is got by one request, and then deleted by a conditional one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from processing.errors import Gone, Misconfigured, NotReady, SourceUnavailable
from sources.bucket_copy import copy_in_parts
from sources.bucket_object import BucketObject, Response, first_name, of_one_object
from sources.local_file import Beat, no_beat
from sources.policy import BUCKET_SCHEME, BucketEnds, BucketPlace, OnLoaded
from sources.s3_client import ClientError, code_of, is_of_others, status_of, translated

#: The ending of the object with the reason, beside a failed one.
NOTE_ENDING = ".reason.txt"

#: After a disposal that got no answer, others are not tried for this time: each would wait as long.
_PAUSE_SECONDS = 5.0

#: Objects that could not be deleted, of which a source knows that they need not be got again.
_MOST_KEPT = 10_000

#: The largest object that is copied by one request, whose answer may come only when all is copied.
_MOST_COPIED = 128 * 1024**2

#: Larger ones are copied in parts of this size.
_PART_BYTES = 64 * 1024**2

#: The longest key, in bytes.
_LONGEST_KEY = 1024

#: Parts of a path that servers and what stands before them may leave out.
_NO_KEYS = frozenset((".", ".."))

_NOT_FOUND, _PRECONDITION_FAILED = 404, 412
_ARCHIVED = "InvalidObjectState"


class BucketSource:
    """Opens the objects of one place, and disposes of exactly those that were read.

    Every request about an object that was read carries its ETag. A version id is never sent: to delete a
    version by its id would bring the one before it back.

    At the place of failed objects it is a replay: they have the names there by which the ledger does not
    know them, and notes beside them.
    """

    def __init__(self, client: Any, place: BucketPlace, ends: BucketEnds, beat: Beat = no_beat) -> None:
        self._client = client
        self._place = place
        self._ends = ends
        self._beat = beat
        self._is_replay = bool(ends.failed) and place.prefix == ends.failed
        self._kept: dict[str, str] = {}  # ETags of objects that could not be deleted, by key
        self._copies: dict[str, tuple[str, str]] = {}  # of those: ETag and key of the copy, by key
        self._no_answer_at = -_PAUSE_SECONDS

    @contextmanager
    def open(self, name: str) -> Iterator[BucketObject]:
        """Asks for an object, whose bytes come when they are read; one that only has to go is not got.

        Raises Gone, NotReady (no rights, archived), SourceUnavailable or Misconfigured.
        """
        self._beat()
        key = self._place.prefix + name
        if not _NO_KEYS.isdisjoint(key.split("/")):
            raise NotReady('a part of its key is "." or "..": it may be taken for another one; rename it')
        try:
            with translated():
                response = self._ask(key)
        except SourceUnavailable as error:
            self._beat()
            raise of_one_object(self._client, self._place, error) from None
        except ClientError as error:
            raise _unopened(error) from None
        known_as = first_name(name) if self._is_replay else name
        file = BucketObject(self._client, self._place, key, known_as, response, self._beat)
        try:
            yield file
        finally:
            file.close()

    def complete(self, file: BucketObject) -> None:
        """Deletes an object whose rows are committed, or moves it under the prefix of the archive.

        There the day of its arrival comes first, so that old days can be removed as a whole.
        """
        with self._disposing(file):
            if self._ends.on_loaded is OnLoaded.ARCHIVE:
                day = f"{datetime.fromtimestamp(file.arrived_at, UTC):%Y-%m-%d}/"
                self._copy(file, _ended(file, self._ends.archive + day))
            self._delete(file)

    def quarantine(self, file: BucketObject, reason: str) -> str:
        """Moves a bad object under the prefix of failed ones, with the reason beside it; returns its address.

        Not at once: a kill in between leaves the object at both places. Its name there depends only on its
        name and content, so that doing it again makes no second one.
        """
        with self._disposing(file):
            key = _ended(file, self._ends.failed)
            is_there = key == file.key  # a replay that has changed nothing
            if not is_there:
                self._copy(file, key)
            note = (reason + "\n").encode(errors="backslashreplace")
            self._client.put_object(Bucket=self._place.bucket, Key=key + NOTE_ENDING, Body=note)
            if not is_there:
                self._delete(file)
            return f"{BUCKET_SCHEME}{self._place.bucket}/{key}"

    def quarantine_unopened(self, name: str, reason: str) -> str:
        """Leaves it: every object can be opened, so there is no such case."""
        raise NotReady(reason)

    def tidy(self) -> None: ...

    def close(self) -> None: ...

    def _ask(self, key: str) -> Response:
        address = {"Bucket": self._place.bucket, "Key": key}
        if key in self._kept:
            head = Response.of(self._client.head_object(**address))
            if head.etag == self._kept[key]:
                return head
            del self._kept[key]
        return Response.of(self._client.get_object(**address))

    @contextmanager
    def _disposing(self, file: BucketObject) -> Iterator[None]:
        """Raises NotReady for whatever goes wrong: the ledger has the object, only its end is missing."""
        self._beat()
        if time.monotonic() - self._no_answer_at < _PAUSE_SECONDS:
            raise NotReady("the bucket does not answer")
        try:
            with translated():
                yield
        except SourceUnavailable as error:
            self._no_answer_at = time.monotonic()
            reason = str(error)
        except (Misconfigured, ClientError) as error:
            reason = str(error)
        else:
            self._kept.pop(file.key, None)
            self._copies.pop(file.key, None)
            return
        if len(self._kept) < _MOST_KEPT:
            self._kept[file.key] = file.response.etag
        raise NotReady(f"it can't be removed: {reason}")

    def _delete(self, file: BucketObject) -> None:
        """Deletes the object unless another one has taken its name."""
        address = {"Bucket": self._place.bucket, "Key": file.key}
        if self._is_replay:  # the note goes first: a kill in between leaves the object, not the note
            self._client.delete_object(Bucket=self._place.bucket, Key=file.key + NOTE_ENDING)
        try:
            self._client.delete_object(**address, IfMatch=file.response.etag)
        except ClientError as error:
            if status_of(error) == _PRECONDITION_FAILED:
                self._look_why(address)
            elif status_of(error) != _NOT_FOUND:
                raise

    def _look_why(self, address: dict[str, str]) -> None:
        """Raises NotReady if an object is there; AWS says 404 where none is, others a failed condition."""
        try:
            self._client.head_object(**address)
        except ClientError as error:
            if status_of(error) != _NOT_FOUND:
                raise
        else:
            raise NotReady("another object took its name")

    def _copy(self, file: BucketObject, key: str) -> None:
        """Copies the object that was read, and no other; once, even if it can't be deleted then."""
        copy = file.response.etag, key
        if self._copies.get(file.key) == copy:
            return
        bucket = self._place.bucket
        condition = {"CopySourceIfMatch": file.response.etag}
        source = {"Bucket": bucket, "Key": file.key}
        try:
            if file.identity.size <= _MOST_COPIED:
                self._client.copy_object(Bucket=bucket, Key=key, CopySource=source, **condition)
            else:
                copy_in_parts(self._client, source, key, condition, _PART_BYTES, self._beat)
        except ClientError as error:
            if status_of(error) in (_PRECONDITION_FAILED, _NOT_FOUND):
                raise NotReady("another object took its name, or it is gone") from None
            raise
        if len(self._copies) < _MOST_KEPT:
            self._copies[file.key] = copy
        self._beat()


def _ended(file: BucketObject, prefix: str) -> str:
    """Returns the key of a copy, which leaves room for that of a note."""
    return prefix + file.lasting_name(_LONGEST_KEY - len(NOTE_ENDING) - len(prefix.encode()))


def _unopened(error: ClientError) -> Exception:
    if status_of(error) == _NOT_FOUND and not is_of_others(error):
        return Gone()
    if code_of(error) == _ARCHIVED:
        return NotReady("it is in an archive (Glacier): restore it, or give it another prefix")
    return NotReady(f"it can't be read: {code_of(error)}")
