"""Counts what a text holds while it is read, with nothing in common with what reads it."""

from processing.text import Readable

_BLANKS = b" \t\n\r"
_CLOSED = b"]}"


class Tally:
    """A text that counts the quotes in it as it passes on."""

    def __init__(self, text: Readable) -> None:
        self.quotes = 0
        self._text = text
        self._last = b""
        self._has_ended = False

    @property
    def is_closed(self) -> bool:
        """Whether the text has ended, and with it the array and its object."""
        return self._has_ended and self._last == _CLOSED

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._text.read(size)
        self.quotes += chunk.count(b'"')
        self._has_ended = not chunk
        last = chunk[-64:].translate(None, _BLANKS)
        if len(last) < len(_CLOSED):  # hardly ever: the whole chunk would take as long as to count
            last = chunk.translate(None, _BLANKS)
        self._last = (self._last + last)[-len(_CLOSED) :]
        return chunk
