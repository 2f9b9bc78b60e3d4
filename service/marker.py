"""The marker in the watch folder: it names the ledger that the folder's files go into.

It catches a disk that is not mounted, a wrong directory, a missing DATABASE_URL: mistakes that would let
another database take the files. It is no protection against those who may write into the folder.
"""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from msgspec import DecodeError, Struct, json

from processing.errors import Misconfigured
from processing.printable import printable

#: Scans take no name that begins with a dot.
NAME = ".database"

#: A marker is no longer.
MOST_BYTES = 10_000

#: So begins the name of a ledger that is a topic: the files are published.
OF_TOPICS = "kafka:"

_REMEDY = (
    "mount its disk, correct DATA_FOLDER or DATABASE_URL, "
    "or start the daemon with --new-database to load into the other one from now on"
)


class Marker(Struct, frozen=True, omit_defaults=True):
    """The ledger's name, and for a person where its database was.

    publisher: the name that whoever publishes these files has at the broker, where only one may have it.
    """

    ledger: str
    database: str
    publisher: str = ""


class Store(Protocol):
    """The place of a marker: a folder, or a bucket."""

    def read(self) -> Marker | None:
        """Returns the marker, if there is one; raises Misconfigured if it can't be read."""

    def write(self, marker: Marker) -> None:
        """Writes the marker, whole or not at all; raises OSError."""

    def add(self, marker: Marker) -> None:
        """Writes the marker unless there is one by now, which stays; raises OSError."""


class FolderStore(Struct, frozen=True):
    """The marker of a folder."""

    folder: Path

    def read(self) -> Marker | None:
        return read(self.folder)

    def write(self, marker: Marker) -> None:
        write(self.folder, marker)

    def add(self, marker: Marker) -> None:
        add(self.folder, marker)


def read(folder: Path) -> Marker | None:
    """Returns the marker of a folder, if it has one; raises Misconfigured if it can't be read."""
    path = folder / NAME
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise unreadable(path, "it is no file")
            return json.decode(os.read(descriptor, MOST_BYTES), type=Marker)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return None
    except (OSError, DecodeError) as error:
        raise unreadable(path, str(error)) from None


def unreadable(path: Path | str, reason: str) -> Misconfigured:
    return Misconfigured(
        f"can't read {printable(str(path))}, which names the database of these files: {reason}; "
        "remove it if you are sure of the database"
    )


def write(folder: Path, marker: Marker) -> None:
    """Writes the marker, whole or not at all, readable for every user; raises OSError."""
    part = folder / f"{NAME}.part"
    with suppress(FileNotFoundError):
        part.unlink()
    _write_whole(part, marker)
    part.replace(folder / NAME)


def add(folder: Path, marker: Marker) -> None:
    """Writes the marker unless another process has written one meanwhile; raises OSError."""
    path, part = folder / NAME, folder / f"{NAME}.{secrets.token_hex(4)}.part"  # which is of this process
    try:
        _write_whole(part, marker)
        try:
            os.link(part, path)
        except FileExistsError:
            return
        except OSError:  # a file system that has no second names
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write_whole(part: Path, marker: Marker) -> None:
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "wb") as file:
        file.write(json.encode(marker))
        file.flush()
        os.fsync(file.fileno())


def refusal(place: str, marker: Marker, instead: str, remedy: str = _REMEDY) -> Misconfigured:
    """Returns the error for a database that is not the one of the folder's files."""
    return Misconfigured(
        f"until now the files of {printable(place)} went into {printable(marker.database)}, "
        f"which is not {printable(instead)}: {remedy}"
    )
