"""Settings of a folder's files: how they end, and how long they must be quiet."""

from enum import StrEnum

#: How long a file must be unchanged, before it is read and again before it is removed, where nobody can know
#: whether it is being written.
QUIET_SECONDS = 1.0


class OnLoaded(StrEnum):
    """The ends of a file whose rows are committed."""

    DELETE = "delete"
    ARCHIVE = "archive"
