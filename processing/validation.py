"""Validation rules that the fields of all kinds share: text, times, unknown fields."""

from collections.abc import Container, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from processing.digits import MAX_DECIMALS, MAX_WHOLE_DIGITS, is_storable
from processing.records import Record

_MIN_YEAR, _MAX_YEAR = 1, 9999

_LARGE_BYTES = 16 * 1024


class Invalid(Exception):
    """A field breaks a rule; path is relative to the record, for example .vehicle_id."""

    def __init__(self, detail: str, path: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.path = path


class UniqueKeys(dict[str, Any]):
    """A JSON object that remembers the values of repeated keys that later values replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.replaced: list[tuple[str, Any]] = []

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self:
            self.replaced.append((key, self[key]))
        super().__setitem__(key, value)


def translate(error: msgspec.ValidationError) -> Invalid:
    """Splits msgspec's message into the detail (what was expected and found) and the path."""
    detail, _, path = str(error).partition(" - at `")
    detail = detail.replace("got `decimal`", "got `float`")  # JSON has no decimals
    return Invalid(detail, path.rstrip("`").removeprefix("$"))


def check_text(value: str, path: str) -> None:
    """Raises Invalid if the text has a NUL character, which PostgreSQL can't hold."""
    if "\0" in value:
        raise Invalid("Expected text without NUL characters, got one with NUL", path)


def check_year(instant: datetime, path: str) -> None:
    """Raises Invalid for a time outside the years 1 to 9999 of UTC: it could be stored, but not read back."""
    if not is_common_year(instant):
        try:
            instant.astimezone(UTC)
        except OverflowError:
            raise Invalid("Expected a time in the years 1 to 9999 of UTC, got one beyond", path) from None


def is_plain(array: bytes) -> bool:
    """Returns whether JSON text has no escapes; then none of its strings can hold NUL."""
    return b"\\" not in array


def is_common_year(instant: datetime) -> bool:
    """Returns whether the year is 1 to 9999 in UTC, too, whatever the offset is."""
    return _MIN_YEAR < instant.year < _MAX_YEAR


def check_keys(record: Mapping[str, Any]) -> None:
    """Raises Invalid if a key is repeated: nothing says which of the two values is meant."""
    if isinstance(record, UniqueKeys) and record.replaced:
        raise Invalid("Expected each key once, got it twice", f".{record.replaced[0][0]}")


def count_keys(value: Any) -> int:
    """Counts the keys of all objects in a JSON value."""
    if isinstance(value, dict):
        return len(value) + sum(map(count_keys, value.values()))
    return sum(map(count_keys, value)) if isinstance(value, list) else 0


def unknown_fields(record: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    """Returns the fields without a column, ready for jsonb; raises Invalid if jsonb can't hold them."""
    check_keys(record)
    extra = {}
    for name, value in record.items():
        if name not in known:
            extra[name] = _within(f".{name}", value)
            check_text(name, f".{name}")
    return extra


def extra_json(unknown: dict[str, Any]) -> str | None:
    """Returns the value of the column extra: null if there are no unknown fields."""
    return to_json(unknown) if unknown else None


def extra_bytes(records: Iterable[Record]) -> int:
    """Returns the size of the records' unknown fields."""
    return sum(len(record.extra) for record in records if record.extra is not None)


def held(value: Any, size: int) -> Any:
    """Returns the value in a form that needs less memory: large ones as JSON text, a tenth of the size."""
    return msgspec.Raw(to_json(value).encode()) if size > _LARGE_BYTES else value


def to_json(value: Any) -> str:
    """Returns JSON text with numbers and repeated keys exactly as they were read."""
    if isinstance(value, UniqueKeys):
        pairs = [*value.replaced, *value.items()]
        return "{" + ",".join(f"{to_json(name)}:{to_json(child)}" for name, child in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(to_json, value)) + "]"
    return _ENCODER.encode(value).decode()


_ENCODER = msgspec.json.Encoder(decimal_format="number")


def _within(step: str, value: Any) -> Any:
    """Returns the value, ready for jsonb; raises Invalid with the step in front of its path.

    The path is built only for an error: a step may be long and lead to many values.
    """
    try:
        return _storable(value)
    except Invalid as flaw:
        raise Invalid(flaw.detail, step + flaw.path) from None


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        check_text(value, "")
    elif isinstance(value, Decimal):
        return _storable_number(value)
    elif isinstance(value, dict):
        check_keys(value)
        for name in value:
            check_text(name, "")
        return {name: _within(f".{name}", child) for name, child in value.items()}
    elif isinstance(value, list):
        return [_within(f"[{index}]", child) for index, child in enumerate(value)]
    return value


def _storable_number(number: Decimal) -> Decimal | int:
    if is_storable(number):
        return number
    if not number:
        return 0  # however many digits it has
    raise Invalid(
        f"Expected a number of at most {MAX_WHOLE_DIGITS} digits before its point and {MAX_DECIMALS} "
        "behind it, got a longer one"
    )
