"""Settings of a source's files: where they arrive, how they end, and how long they must be quiet."""

from enum import StrEnum

from msgspec import Struct

#: How long a file must be unchanged, before it is read and again before it is removed, where nobody can know
#: whether it is being written.
QUIET_SECONDS = 1.0

#: What the address of a bucket begins with.
BUCKET_SCHEME = "s3://"


class OnLoaded(StrEnum):
    """The ends of a file whose rows are committed."""

    DELETE = "delete"
    ARCHIVE = "archive"


class BucketPlace(Struct, frozen=True):
    """A part of a bucket: all keys that begin with its prefix, which is empty or ends with a slash."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{BUCKET_SCHEME}{self.bucket}/{self.prefix}"


class BucketEnds(Struct, frozen=True):
    """The prefixes that a bucket's objects end in, and what the settings say of loaded ones."""

    failed: str
    archive: str
    on_loaded: OnLoaded
