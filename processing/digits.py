"""Numbers as they were written: what a column takes of them, and how long ones get past the parser."""

import re
from decimal import Decimal

from processing.json_limits import JsonLimits

#: What PostgreSQL's numeric, and so jsonb, takes before and behind the decimal point.
MAX_WHOLE_DIGITS, MAX_DECIMALS = 131_072, 16_383

#: Shorter than the shortest bound that Python's setting for the length of integers may have.
_MANY = 600
_STRIDE = 100
#: In every hundredth byte of a text with so many digits in a row.
_TRACE = re.compile(rb"[0-9]{5}")
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[-+.0-9eE]++', re.DOTALL)
_OF_NUMBERS = b"+-.0123456789eE"


def is_storable(number: Decimal) -> bool:
    """Whether a column takes it with all of its digits."""
    text = str(number)
    if len(text) <= MAX_DECIMALS and "E" not in text:  # nearly always: no tuple of digits is made for these
        return True
    if number.adjusted() >= MAX_WHOLE_DIGITS or len(text) > MAX_WHOLE_DIGITS + MAX_DECIMALS + len("-."):
        return False
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -MAX_DECIMALS


class LongIntegers:
    """Writes 123 as 123e0 on its way to the parser, where it has many digits: a decimal for the parser.

    As an integer it would crash it, and take time that grows with the square of the digits.
    """

    def __init__(self) -> None:
        self._number = b""

    def feed(self, chunk: bytes, opening: bytes, structure: JsonLimits) -> bytes:
        """What the parser gets for a chunk, before which and behind which the structure stood so."""
        text = opening + self._number + chunk
        start = len(text) - len(chunk)
        goes_on = chunk and not structure.opening
        self._number = text[len(text.rstrip(_OF_NUMBERS)) :] if goes_on else b""
        if not _TRACE.search(text[::_STRIDE]):
            return chunk
        end = len(text) - len(self._number)
        return (_TOKEN.sub(_as_decimal, text[:end]) + self._number)[start:]


def _as_decimal(token: re.Match[bytes]) -> bytes:
    number = token[0]
    is_long = len(number) >= _MANY and number.removeprefix(b"-").isdigit()
    return number + b"e0" if is_long else number
