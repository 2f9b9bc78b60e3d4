"""Files whose text is small beside what a careless loader makes of it, or whose rows are very wide."""

from collections.abc import Callable, Iterable
from pathlib import Path

_EVENT = b'{"vehicle_id":"v","detection_time":"2022-06-05T21:02:34Z","detections":['
_WIDEST = "\U0001f600".encode() * 250


def one_wrong_event(place: Path) -> None:
    """An event of 2,000,000 wrong detections, as many as the 4 MB of a record hold."""
    _write(
        place / "objects_detection_1.json", b"objects_detection_events", [_EVENT + b"1," * 1_999_999 + b"1]}"]
    )


def wide_rows(place: Path) -> None:
    """Texts of 255 characters of four bytes."""
    rows = (
        b'{"vehicle_id":"%05d%b","detection_time":"2022-06-05T21:02:34Z","detections":['
        b'{"object_type":"%05d%b","object_value":1}]}' % (number, _WIDEST, number, _WIDEST)
        for number in range(40_000)
    )
    _write(place / "objects_detection_1.json", b"objects_detection_events", rows)


def wrong_elements(place: Path) -> None:
    """A small file of 50,000 rejects."""
    _write(place / "vehicles_status_1.json", b"vehicle_status", [b"1"] * 50_000)


def unknown_numbers(place: Path) -> None:
    """In each record 10,000 decimals that no column holds."""
    field = b",".join([b"1.5"] * 10_000)
    rows = (
        b'{"vehicle_id":"v","report_time":"2022-05-05T%02d:%02d:00Z","status":"x","x":[%b]}'
        % (number // 60, number % 60, field)
        for number in range(500)
    )
    _write(place / "vehicles_status_1.json", b"vehicle_status", rows)


ODD_FILES: dict[str, Callable[[Path], None]] = {
    "an event of 2 M rejects": one_wrong_event,
    "rows of 255 emojis": wide_rows,
    "a small file of rejects": wrong_elements,
    "long unknown fields": unknown_numbers,
}


def _write(path: Path, key: bytes, elements: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for number, element in enumerate(elements):
            file.write(b"," + element if number else b'{"%b":[%b' % (key, element))
        file.write(b"]}")
