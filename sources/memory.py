"""Texts in memory as a source: rejected records that are loaded again, and tests."""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from processing.errors import Gone
from processing.source import CHUNK_BYTES


class MemoryIdentity(Struct, frozen=True):
    """The name and the size of a text, which never changes."""

    name: str
    size: int

    def same_content_as(self, other: "MemoryIdentity") -> bool:
        return self == other


class MemoryFile:
    """A text that nobody else has: it is never locked and needs not be closed."""

    hides_writers = ""
    arrived_at: float | None = None
    position = 0
    may_grow = True
    origin = None

    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        self.identity = MemoryIdentity(name, len(content))
        self.sha256 = b""
        self._content = content

    def open_bytes(self) -> "io.BufferedReader[io.BytesIO]":
        return io.BufferedReader(io.BytesIO(self._content), CHUNK_BYTES)

    def digest(self) -> None:
        """Sets sha256, of the name and the text: of two records with the same text each is loaded."""
        self.sha256 = hashlib.sha256(self.name.encode() + b"\0" + self._content).digest()

    def check_unchanged(self) -> None: ...

    def identity_if_moved(self) -> MemoryIdentity:
        return self.identity

    def beat(self) -> None: ...


class MemorySource:
    """Opens texts by name; disposes of none, only notes which ones were complete and which ones bad."""

    def __init__(self, text_of: Callable[[str], bytes | None]) -> None:
        """Takes a function, so that the texts need not be in memory all at once."""
        self.completed: list[str] = []
        self.quarantined: dict[str, str] = {}
        self._text_of = text_of

    @contextmanager
    def open(self, name: str) -> Iterator[MemoryFile]:
        """Raises Gone if there is no text of that name."""
        text = self._text_of(name)
        if text is None:
            raise Gone
        yield MemoryFile(name, text)

    def complete(self, file: MemoryFile) -> None:
        self.completed.append(file.name)

    def quarantine(self, file: MemoryFile, reason: str) -> str:
        return self.quarantine_unopened(file.name, reason)

    def quarantine_unopened(self, name: str, reason: str) -> str:
        self.quarantined[name] = reason
        return name

    def tidy(self) -> None: ...

    def close(self) -> None: ...
