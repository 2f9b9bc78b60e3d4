"""Other spellings of values that are unambiguous: they are respelled where msgspec's strict reading fails."""

import re
from collections.abc import Mapping
from datetime import UTC
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar

from msgspec import Struct, ValidationError, convert
from msgspec.inspect import DateTimeType, IntType, ListType, StructType, Type, type_info

from processing.records import Instant
from processing.validation import Invalid, translate

#: Digits beyond which an integer has only to be large: no column takes so many.
_MAX_DIGITS = 20

S = TypeVar("S", bound=Struct)

#: A time that RFC 3339 allows but for seconds that are left out, or an offset of hours alone.
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d)(:\d\d(?:\.\d+)?)?(?:([Zz]|[+-]\d\d:?\d\d)|([+-]\d\d))", re.ASCII
)


def read_as(form: type[S], item: Any) -> S:
    """Returns the item as a struct of that form; raises Invalid.

    An item that is not exactly as documented is tried again with its values respelled. The item stays as it
    is: what is kept of it is as it was dropped.
    """
    try:
        return convert(item, form)
    except ValidationError:
        usual = _respelled(item, _type_of(form))
    try:
        return convert(usual, form)
    except ValidationError as error:
        raise translate(error) from None


@cache
def _type_of(form: type[Struct]) -> Type:
    return type_info(form)


def _respelled(value: Any, form: Type) -> Any:
    match form:
        case DateTimeType() if isinstance(value, str):
            return _time(value)
        case IntType() if isinstance(value, Decimal):
            return _integer(value)
        case ListType() if isinstance(value, list):
            return [_at(f"[{index}]", child, form.item_type) for index, child in enumerate(value)]
        case StructType() if isinstance(value, Mapping):
            fields = {field.encode_name: field.type for field in form.fields}
            return {
                name: _at(f".{name}", child, fields[name]) for name, child in value.items() if name in fields
            }
    return value


def _at(step: str, value: Any, form: Type) -> Any:
    """Returns the value respelled; raises Invalid with the step in front of its path."""
    try:
        return _respelled(value, form)
    except Invalid as flaw:
        raise Invalid(flaw.detail, step + flaw.path) from None


def _integer(number: Decimal) -> Decimal | int:
    """Returns an integer that is written with a point or an exponent (3.0, 1e1), or the number as it is."""
    if not number:
        return 0
    if number != number.to_integral_value():
        return number
    if number.adjusted() >= _MAX_DIGITS:  # as an integer, 1e999999999 would fill the memory
        return int(Decimal(10**_MAX_DIGITS).copy_sign(number))
    return int(number)


def _time(text: str) -> str:
    """Returns the time as RFC 3339 spells it, or as it is; raises Invalid for a leap second."""
    found = _TIME.fullmatch(text)
    if found is None:
        return text
    start, seconds, offset, hours = found.groups()
    end = offset or f"{hours}:00"
    if seconds and seconds.startswith(":60") and _is_last_minute(f"{start}:59{end}"):
        raise Invalid("Expected seconds from 00 to 59, got a leap second")
    return f"{start}{seconds or ':00'}{end}"


def _is_last_minute(time: str) -> bool:
    """Returns whether it is the last minute of a UTC day, the only one that leap seconds are added to."""
    try:
        utc = convert(time, Instant).astimezone(UTC)
    except (ValidationError, OverflowError):
        return False
    return (utc.hour, utc.minute) == (23, 59)
