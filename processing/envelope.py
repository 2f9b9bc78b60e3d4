"""Takes the fields beside the array out of a document's text: blanks stand in their place.

What reads the text finds one array under one key, at the same offsets. A text whose fields can't be read is
left as it is: the parser will say what is wrong with it.
"""

import json
import re
from collections.abc import Container
from decimal import Decimal
from typing import Any, NoReturn

from processing.errors import BadFile, FileError
from processing.fast_path import HEAD
from processing.source import CHUNK_BYTES
from processing.text import Readable
from processing.validation import Invalid, UniqueKeys, to_json, unknown_fields

#: Bytes in which the fields before the array, and those behind it, must be.
MAX_EXTRA_BYTES = 64 * 1024

#: Bytes that are parsed in search of the array's end.
_MAX_SEARCHED = 16 * MAX_EXTRA_BYTES

_WS = r"[ \t\n\r]*+"
_OPENING = re.compile(rf"{_WS}\{{{_WS}")
_COLON = re.compile(rf"{_WS}:{_WS}")
_COMMA = re.compile(rf"{_WS},{_WS}")
_CLOSING = re.compile(rf"{_WS}\}}{_WS}\Z")
#: Ends the array, if fields follow it.
_END = re.compile(rf'\](?={_WS},{_WS}")')
#: Ends a document without fields behind its array, nearly always.
_USUAL_END = re.compile(rb"[}\[][ \t\n\r]*+\][ \t\n\r]*+\}[ \t\n\r]*+\Z")
_NEAR_END = 32


class Envelope:
    """The text of a document without the fields beside its array.

    A hasty one does not look for fields behind what is usually the end of the array. extra is complete when
    the text has been read to its end.
    """

    def __init__(self, text: Readable, keys: Container[str], *, is_hasty: bool) -> None:
        self._is_complete = False
        self._text = text
        self._keys = keys
        self._is_hasty = is_hasty
        self._fields = UniqueKeys()
        self._held = b""
        self._array_start = 0
        self._has_array = False
        self._error: FileError | None = None
        self._has_ended = self._has_begun = False

    def read(self, size: int = -1, /) -> bytes:
        if size == 0:
            return b""
        if not self._has_ended:
            self._fill(MAX_EXTRA_BYTES + max(size, 0))
        end = len(self._held) if self._has_ended else len(self._held) - MAX_EXTRA_BYTES
        chunk = self._held[: min(size, end)] if size > 0 else self._held[:end]
        if not chunk and self._error:
            raise self._error
        self._held = self._held[len(chunk) :]
        self._array_start -= len(chunk)
        return chunk

    def extra(self) -> str | None:
        """Returns the fields as JSON; None if there are none. Raises BadFile if they can't be stored."""
        if not self._fields:
            return None
        for key in self._fields:
            if key in self._keys:
                raise BadFile("expected one array under one top-level key, got another such key beside it")
        try:
            extra = to_json(unknown_fields(self._fields, ()))
            size = len(extra.encode())
        except Invalid as flaw:
            raise BadFile(f"fields beside the array: {flaw.detail}, at ${flaw.path[:40]!a}") from None
        except UnicodeEncodeError:
            raise BadFile("expected Unicode text, got half of a surrogate pair") from None
        if size > MAX_EXTRA_BYTES:
            raise BadFile(f"expected at most {MAX_EXTRA_BYTES} bytes of fields beside the array, got more")
        return extra

    def _fill(self, wanted: int) -> None:
        """Reads until that many bytes are held or the text ends; an error waits for the bytes before it."""
        parts, held = [self._held], len(self._held)
        while held < wanted and not self._has_ended:
            try:
                chunk = self._text.read(CHUNK_BYTES)
            except FileError as error:
                self._error, self._has_ended = error, True
                break
            self._has_ended = not chunk
            parts.append(chunk)
            held += len(chunk)
        if len(parts) > 1:
            self._held = b"".join(parts)
        if not self._has_begun:
            self._has_begun = True
            self._take_head()
        if self._has_ended and not self._is_complete:
            self._is_complete = True
            if self._error is None and self._has_array:
                self._take_tail()

    def _take_head(self) -> None:
        usual = HEAD.match(self._held)
        if usual and usual[1].decode() in self._keys:
            self._has_array, self._array_start = True, usual.end() - 1
            return
        text = self._held[:MAX_EXTRA_BYTES].decode("latin-1")  # one character a byte
        opening = _OPENING.match(text)
        if opening is None:
            return
        start = opening.end()
        end, _ = _skip_fields(text, start, self._keys)
        key = _key_at(text, end)
        if key and key[0] in self._keys and text[key[1] : key[1] + 1] == "[":
            self._has_array = self._take(start, end)
            self._array_start = key[1]

    def _take_tail(self) -> None:
        held = self._held
        if self._is_hasty and _USUAL_END.search(held, max(0, len(held) - _NEAR_END)):
            return
        text, left = held.decode("latin-1"), _MAX_SEARCHED
        for found in _END.finditer(text, max(0, self._array_start)):
            comma = _COMMA.match(text, found.end())
            assert comma is not None
            end, searched = _skip_fields(text, comma.end(), ())
            if _CLOSING.match(text, end):
                self._take(found.end(), end)
                return
            left -= searched - comma.end()
            if left < 0:
                return

    def _take(self, start: int, end: int) -> bool:
        """Keeps the fields that stand there, and puts blanks in their place; False if they can't be read."""
        try:
            text = self._held[start:end].decode().strip(" \t\n\r,")
            fields = _READER.decode(f"{{{text}}}")
        except (ValueError, ArithmeticError, RecursionError):
            return False
        for name, value in [*fields.replaced, *fields.items()]:
            self._fields[name] = value
        self._held = self._held[:start] + b" " * (end - start) + self._held[end:]
        return True


def is_usual(text: bytes, keys: Container[str]) -> bool:
    """Returns whether a text begins and ends with the array, as far as its first and last bytes show."""
    head = HEAD.match(text)
    return bool(head and head[1].decode() in keys and _USUAL_END.search(text, max(0, len(text) - _NEAR_END)))


def has_several(head: bytes) -> bool:
    """Returns whether another object or array stands behind the first one, as in NDJSON."""
    text = head.decode("latin-1")
    try:
        _, end = _READER.raw_decode(text, len(text) - len(text.lstrip(" \t\n\r")))
    except (ValueError, ArithmeticError, RecursionError):
        return False
    return text[end:].lstrip(" \t\n\r")[:1] in ("{", "[")


def _skip_fields(text: str, start: int, keys: Container[str]) -> tuple[int, int]:
    """Returns where the fields end that are no array's of these keys, and how far the text was searched."""
    end = start
    while key := _key_at(text, start):
        if key[0] in keys:
            break
        try:
            _, end = _READER.raw_decode(text, key[1])
        except (ValueError, ArithmeticError, RecursionError) as error:
            return start, getattr(error, "pos", len(text))
        comma = _COMMA.match(text, end)
        if comma is None:
            break
        start = end = comma.end()
    return end, end


def _key_at(text: str, start: int) -> tuple[str, int] | None:
    """Returns the key that begins there, and where its value does."""
    if text[start : start + 1] != '"':
        return None
    try:
        key, end = _READER.raw_decode(text, start)
    except ValueError:
        return None
    colon = _COLON.match(text, end)
    return (key, colon.end()) if colon else None


def _with_repeats(pairs: list[tuple[str, Any]]) -> UniqueKeys:
    found = UniqueKeys()
    for name, value in pairs:
        found[name] = value
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_READER = json.JSONDecoder(
    object_pairs_hook=_with_repeats, parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse
)
