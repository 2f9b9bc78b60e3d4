"""Counts a text's quotes while it is read, independently of the code that decodes it."""

from processing.text import Readable

_BLANKS = b" \t\n\r"
_CLOSED = b"]}"


class Tally:
    """A text that counts its quotes while it is read."""

    def __init__(self, text: Readable) -> None:
        self.quotes = 0
        self._text = text
        self._last = b""
        self._has_ended = False

    @property
    def is_closed(self) -> bool:
        """Returns whether the text has been read to its end, and ends with the array and its object."""
        return self._has_ended and self._last == _CLOSED

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._text.read(size)
        self.quotes += chunk.count(b'"')
        self._has_ended = not chunk
        last = chunk[-64:].translate(None, _BLANKS)
        if len(last) < len(_CLOSED):  # rare; always the whole chunk would cost as much as counting
            last = chunk.translate(None, _BLANKS)
        self._last = (self._last + last)[-len(_CLOSED) :]
        return chunk
