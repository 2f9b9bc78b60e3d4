"""File names as they are logged and stored."""

import os

import pytest

from processing.printable import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"vehicles_status_1.json", "vehicles_status_1.json"),
        ("caf\u00e9 \U0001f600.json".encode(), "caf\u00e9 \U0001f600.json"),
        (b"a\xff\xfe.json", r"a\xff\xfe.json"),
        (b"a\nb\tc\x00d.json", r"a\nb\tc\x00d.json"),
        (b"\x1b[31mred.json", r"\x1b[31mred.json"),
        ("a\u202eb\u2028c\u00a0.json".encode(), r"a\u202eb\u2028c\xa0.json"),
    ],
)
def test_a_name_is_shown_on_one_line_of_printable_text(name: bytes, shown: str) -> None:
    assert printable(os.fsdecode(name)) == shown
    assert printable(os.fsdecode(name)).isprintable()


@pytest.mark.parametrize("half", ["\ud800", "\udc7f", "\udd00", "\udfff"])
def test_half_of_a_surrogate_pair_is_escaped_as_it_is_written_in_json(half: str) -> None:
    assert printable(f"é{half}\udcff.json") == rf"é\u{ord(half):x}\xff.json"
