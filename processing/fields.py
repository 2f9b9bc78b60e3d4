"""The rules that the fields of every kind share: text, instants, unknown fields."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from processing.records import Record, Rejected

_MIN_YEAR, _MAX_YEAR = 1, 9999


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


def check_repeats(record: Any, path: str = "", *, without: str | None = None) -> None:
    """Which of two values under one key is meant, nobody knows; one field may be left out of the search."""
    if isinstance(record, UniqueKeys) and record.replaced:
        raise Invalid("Expected each key once, got it twice", f"{path}.{record.replaced[0][0]}")
    for step, value in _children(record):
        if without is None or step != f".{without}":
            check_repeats(value, f"{path}{step}")


def count_keys(value: Any) -> int:
    """All keys of all objects in a JSON value."""
    own = len(value) if isinstance(value, Mapping) else 0
    return own + sum(count_keys(child) for _, child in _children(value))


def unknown_fields(record: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The fields of a record that no column holds; none of their texts may hold NUL."""
    extra = {name: value for name, value in record.items() if name not in known}
    for name, value in extra.items():
        _check_no_nul(value, f".{name}")
        check_text(name, f".{name}")
    return extra


def extra_json(unknown: dict[str, Any]) -> str | None:
    """The value of a column extra: null where there is nothing."""
    return to_json(unknown) if unknown else None


def loose_bytes(records: Iterable[Record], rejected: Iterable[Rejected]) -> int:
    """The size of what has no bound of its own."""
    extra = sum(len(record.extra) for record in records if record.extra is not None)
    return extra + sum(len(to_json(reject.original)) for reject in rejected)


def to_json(value: Any) -> str:
    """JSON text of a value that was read from JSON; numbers and repeated keys as they were written."""
    if isinstance(value, dict):
        pairs = [*getattr(value, "replaced", ()), *value.items()]
        return "{" + ",".join(f"{to_json(name)}:{to_json(child)}" for name, child in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(to_json, value)) + "]"
    return _ENCODER.encode(value).decode()


_ENCODER = msgspec.json.Encoder(decimal_format="number")


def _check_no_nul(value: Any, path: str) -> None:
    if isinstance(value, str):
        check_text(value, path)
    for step, child in _children(value):
        check_text(step, path)
        _check_no_nul(child, f"{path}{step}")


def _children(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return ((f".{name}", child) for name, child in value.items())
    if isinstance(value, list):
        return ((f"[{index}]", child) for index, child in enumerate(value))
    return ()
