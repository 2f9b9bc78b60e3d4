"""Limits of numbers: which of them a column can hold, and how long integers get past the parser."""

import re
from decimal import Decimal

from processing.json_limits import JsonLimits

#: Digits before and after the decimal point that PostgreSQL's numeric, and so jsonb, can hold.
MAX_WHOLE_DIGITS, MAX_DECIMALS = 131_072, 16_383

#: Digits from which an integer is rewritten: below 640, the lowest limit that Python can be set to.
_MANY_DIGITS = 600
_STRIDE = 100
#: Every hundredth byte of a text is searched for this: a long integer fills at least five in a row.
_TRACE = re.compile(rb"[0-9]{5}")
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[-+.0-9eE]++', re.DOTALL)
_NUMBER_BYTES = b"+-.0123456789eE"


def is_storable(number: Decimal) -> bool:
    """Returns whether a column can hold the number with all of its digits."""
    text = str(number)
    if len(text) <= MAX_DECIMALS and "E" not in text:  # nearly always; builds no tuple
        return True
    if number.adjusted() >= MAX_WHOLE_DIGITS or len(text) > MAX_WHOLE_DIGITS + MAX_DECIMALS + len("-."):
        return False
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -MAX_DECIMALS


class LongIntegers:
    """Rewrites integers of many digits, such as 123 as 123e0, so that the parser reads them as decimals.

    As an integer, such a number crashes the parser, after a time that grows with the square of its digits.
    """

    def __init__(self) -> None:
        self._number = b""

    def feed(self, chunk: bytes, opening: bytes, limits: JsonLimits) -> bytes:
        """Returns the chunk for the parser; opening is limits.opening from before the chunk was fed."""
        text = opening + self._number + chunk
        start = len(text) - len(chunk)
        # A number at the end may continue in the next chunk, unless it was the last or ends in a string.
        may_continue = chunk and not limits.opening
        self._number = text[len(text.rstrip(_NUMBER_BYTES)) :] if may_continue else b""
        if not _TRACE.search(text[::_STRIDE]):
            return chunk
        end = len(text) - len(self._number)
        return (_TOKEN.sub(_as_decimal, text[:end]) + self._number)[start:]


def _as_decimal(token: re.Match[bytes]) -> bytes:
    number = token[0]
    is_long = len(number) >= _MANY_DIGITS and number.removeprefix(b"-").isdigit()
    return number + b"e0" if is_long else number
