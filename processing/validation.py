"""The rules that the fields of every kind share: text, instants, unknown fields."""

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
    """A field breaks a rule; path is relative to the record, such as .vehicle_id."""

    def __init__(self, detail: str, path: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.path = path


class UniqueKeys(dict[str, Any]):
    """A JSON object that remembers what it was given under keys that came again."""

    def __init__(self) -> None:
        super().__init__()
        self.replaced: list[tuple[str, Any]] = []

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self:
            self.replaced.append((key, self[key]))
        super().__setitem__(key, value)


def translate(error: msgspec.ValidationError) -> Invalid:
    """msgspec's message, split into what was expected and found, and where."""
    detail, _, path = str(error).partition(" - at `")
    detail = detail.replace("got `decimal`", "got `float`")  # JSON has no decimals
    return Invalid(detail, path.rstrip("`").removeprefix("$"))


def check_text(value: str, path: str) -> None:
    """PostgreSQL's text can't hold NUL."""
    if "\0" in value:
        raise Invalid("Expected text without NUL characters, got one with NUL", path)


def check_year(instant: datetime, path: str) -> None:
    """Beyond the years 1 to 9999 of UTC an instant could be stored but not be read back."""
    if not is_common_year(instant):
        try:
            instant.astimezone(UTC)
        except OverflowError:
            raise Invalid("Expected a time in the years 1 to 9999 of UTC, got one beyond", path) from None


def is_plain(array: bytes) -> bool:
    """Whether JSON text has nothing escaped: no text in it can then hold NUL."""
    return b"\\" not in array


def is_common_year(instant: datetime) -> bool:
    """Whether its year in UTC is one of 1 to 9999, whatever its offset."""
    return _MIN_YEAR < instant.year < _MAX_YEAR


def check_keys(record: Mapping[str, Any]) -> None:
    """Which of two values under one key is meant, nobody knows."""
    if isinstance(record, UniqueKeys) and record.replaced:
        raise Invalid("Expected each key once, got it twice", f".{record.replaced[0][0]}")


def count_keys(value: Any) -> int:
    """All keys of all objects in a JSON value."""
    if isinstance(value, dict):
        return len(value) + sum(map(count_keys, value.values()))
    return sum(map(count_keys, value)) if isinstance(value, list) else 0


def unknown_fields(record: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    """The fields of a record that no column holds, as jsonb can hold them; raises Invalid if it can't."""
    check_keys(record)
    extra = {}
    for name, value in record.items():
        if name not in known:
            extra[name] = _within(f".{name}", value)
            check_text(name, f".{name}")
    return extra


def extra_json(unknown: dict[str, Any]) -> str | None:
    """The value of a column extra: null where there is nothing."""
    return to_json(unknown) if unknown else None


def extra_bytes(records: Iterable[Record]) -> int:
    """The size of their unknown fields."""
    return sum(len(record.extra) for record in records if record.extra is not None)


def held(value: Any, size: int) -> Any:
    """A value of about so many bytes as it may wait for its turn: a large one takes a tenth as its text."""
    return msgspec.Raw(to_json(value).encode()) if size > _LARGE_BYTES else value


def to_json(value: Any) -> str:
    """JSON text of a value that was read from JSON; numbers and repeated keys as they were written."""
    if isinstance(value, UniqueKeys):
        pairs = [*value.replaced, *value.items()]
        return "{" + ",".join(f"{to_json(name)}:{to_json(child)}" for name, child in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(to_json, value)) + "]"
    return _ENCODER.encode(value).decode()


_ENCODER = msgspec.json.Encoder(decimal_format="number")


def _within(step: str, value: Any) -> Any:
    """A value as jsonb can hold it; the step becomes part of a path only where there is a flaw, since it may
    be long and lead to many."""
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
