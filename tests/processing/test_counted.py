"""Numbers with what they count."""

import pytest

from processing.counted import counted, noun


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (1240, "1,240 files")]
)
def test_a_number_has_the_form_of_its_noun(number: int, text: str) -> None:
    assert counted(number, "file") == text


def test_a_plural_of_its_own_is_given() -> None:
    assert [counted(number, "entry", "entries") for number in (1, 2)] == ["1 entry", "2 entries"]
    assert [noun(number, "waits", "wait") for number in (0.5, 1.0, 3)] == ["wait", "waits", "wait"]
