"""One object of a bucket: its bytes come by one request, into memory or into a file without a name."""

import errno
import hashlib
import io
import os
import re
import tempfile
from contextlib import ExitStack
from typing import IO, Any

from msgspec import Struct

from processing.errors import FileError, NotReady, SourceUnavailable
from processing.printable import printable
from processing.source import CHUNK_BYTES, MAX_SHARED_BYTES, Origin
from sources.local_file import Beat
from sources.policy import BUCKET_SCHEME, BucketPlace
from sources.s3_client import BROKEN, ClientError, Damaged, code_of, translated

#: What lasting_name() puts before the ending.
_DIGEST = re.compile(r"-[0-9a-f]{8}\Z")

#: The ending of a name, in whatever case.
_ENDING = re.compile(r"\.json(\.gz|\.zst)?\Z", re.ASCII | re.IGNORECASE)

#: Broken transfers in a row that brought not a byte, before the bucket counts as away.
_MOST_BREAKS = 5

_PARTIAL_CONTENT = 206


class BucketIdentity(Struct, frozen=True):
    """One content of a key; an object never changes, it is only replaced."""

    etag: str
    size: int

    def same_content_as(self, other: "BucketIdentity") -> bool:
        return self == other


class Response(Struct, frozen=True):
    """The answer to a request for an object; without a body if only its head was asked for."""

    etag: str
    size: int
    version: str | None
    body: Any
    arrived_at: float

    @classmethod
    def of(cls, answer: dict[str, Any]) -> "Response":
        """Raises NotReady if the server does not tell what is needed."""
        try:
            arrived_at = answer["LastModified"].timestamp()
            etag, size = answer["ETag"], answer["ContentLength"]
        except KeyError as error:
            raise NotReady(f"the server does not tell its {error.args[0]}") from None
        return cls(etag, size, answer.get("VersionId"), answer.get("Body"), arrived_at)


class BucketObject:
    """An object that was asked for. Its bytes are got, whole, when they are first needed."""

    hides_writers = ""
    may_grow = False

    def __init__(
        self, client: Any, place: BucketPlace, key: str, name: str, response: Response, beat: Beat
    ) -> None:
        self.name = name
        self.key = key
        self.response = response
        self.identity = BucketIdentity(response.etag, response.size)
        self.arrived_at = response.arrived_at
        self.position = 0
        self.origin = Origin(printable(f"{BUCKET_SCHEME}{place.bucket}/{self.key}"), _version(response))
        self.sha256 = b""
        self.beat = beat
        self._place = place
        self._client = client
        self._digest = hashlib.sha256()
        self._content: bytes | None = None
        self._spool: IO[bytes] | None = None

    def open_bytes(self) -> "io.BufferedReader[Any]":
        """Opens the bytes as dropped, from the beginning."""
        self._get()
        self.position = 0
        if self._spool is not None:
            return io.BufferedReader(_Spooled(self, self._spool.fileno()), CHUNK_BYTES)
        return io.BufferedReader(io.BytesIO(self._content or b""), CHUNK_BYTES)

    def digest(self) -> None:
        """Gets the bytes and sets sha256."""
        self._get()
        self.sha256 = self._digest.digest()

    def check_unchanged(self) -> None:
        """Does nothing but beat: what was got can't change any more."""
        self.beat()

    def identity_if_moved(self) -> BucketIdentity:
        return self.identity

    def lasting_name(self, room: int) -> str:
        """Returns a name of so many bytes that is the same for the same name and content, and for no other.

        Of a long name only the beginning is kept.
        """
        content = self.sha256.hex() or hashlib.sha256(self.response.etag.encode()).hexdigest()
        stem, ending = split_name(self.name)
        ending = f"-{content[:8]}{ending}"
        return stem.encode()[: room - len(ending.encode())].decode(errors="ignore") + ending

    def close(self) -> None:
        """Ends the transfer if it was not needed, and lets the bytes go."""
        if self.response.body is not None:
            self.response.body.close()
        if self._spool is not None:
            self._spool.close()

    def _get(self) -> None:
        """Gets the bytes, once: small ones into memory, others into a file that no other process sees."""
        if self._content is not None or self._spool is not None:
            return
        try:
            if not self.identity.size:  # of nothing no part can be asked for
                self._content = b""
            elif self.identity.size <= MAX_SHARED_BYTES:
                memory = io.BytesIO()
                self._transfer(memory)
                self._content = memory.getvalue()
            else:
                with ExitStack() as stack:
                    spool = stack.enter_context(tempfile.TemporaryFile())
                    self._transfer(spool)
                    spool.flush()
                    self._spool = spool
                    stack.pop_all()
        except SourceUnavailable as error:
            self.beat()
            raise of_one_object(self._client, self._place, error) from None
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            raise NotReady(
                f"it can't be kept in {tempfile.gettempdir()} while it is loaded: {reason}"
            ) from None

    def _transfer(self, target: IO[bytes]) -> None:
        """Copies all bytes, going on where a transfer broke, from the same content only."""
        done = breaks = 0
        body = self.response.body or self._ask_from(0)[0]
        while done < self.identity.size:
            try:
                chunk = body.read(CHUNK_BYTES)
                problem = "" if chunk else "it ends too early"
            except BROKEN as error:
                chunk, problem = b"", str(error)
            self.beat()
            if problem:
                breaks += 1
                if breaks > _MOST_BREAKS:
                    raise SourceUnavailable(f"the transfer of an object breaks again and again: {problem}")
                body.close()
                body, start = self._ask_from(done)
                if start != done:
                    self._digest, done = hashlib.sha256(), start
                    target.seek(start)
                    target.truncate()
                continue
            target.write(chunk)
            self._digest.update(chunk)
            done, breaks = done + len(chunk), 0
        try:
            body.read(1)  # only at the end a checksum is compared
        except Damaged:
            raise NotReady("it arrived damaged") from None
        except BROKEN:
            pass

    def _ask_from(self, start: int) -> tuple[Any, int]:
        """Returns a body that goes on there, or from the beginning where no parts of objects are sent."""
        address, etag = {"Bucket": self._place.bucket, "Key": self.key}, self.response.etag
        try:
            with translated():
                answer = self._client.get_object(**address, Range=f"bytes={start}-", IfMatch=etag)
                is_part = answer["ResponseMetadata"]["HTTPStatusCode"] == _PARTIAL_CONTENT
                found, body = answer["ETag"], answer["Body"]
        except ClientError as error:
            raise NotReady(f"it was replaced, or has gone, while it was read ({code_of(error)})") from None
        if found != etag:
            body.close()
            raise NotReady("it was replaced while it was read")
        return body, start if is_part else 0


def of_one_object(client: Any, place: BucketPlace, error: SourceUnavailable) -> FileError | SourceUnavailable:
    """Returns what an error means that came of an object: NotReady if the server answers about others."""
    try:
        with translated():
            client.list_objects_v2(Bucket=place.bucket, Prefix=place.prefix, MaxKeys=1)
    except SourceUnavailable:
        return error
    except ClientError:
        pass  # an answer, too
    return NotReady(f"it can't be read, though the server answers: {error}")


def split_name(name: str) -> tuple[str, str]:
    """Returns a name without its ending, and the ending."""
    ending = _ENDING.search(name)
    place = ending.start() if ending else len(name)
    return name[:place], name[place:]


def first_name(name: str) -> str:
    """Returns the name that an object had when it arrived, of its lasting one."""
    stem, ending = split_name(name)
    return _DIGEST.sub("", stem) + ending


def _version(response: Response) -> str:
    """Returns the id of the version; in a bucket without versions the ETag."""
    return response.version if response.version not in (None, "null") else response.etag.strip('"')


class _Spooled(io.RawIOBase):
    """Reads the bytes of a spool from the beginning, whatever position its descriptor has."""

    def __init__(self, file: BucketObject, fd: int) -> None:
        self._file = file
        self._fd = fd
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = os.preadv(self._fd, [buffer], self._position)
        self._position += count
        self._file.position = self._position
        self._file.beat()
        return count
