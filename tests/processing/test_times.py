"""Times as people type them, for every option that takes one."""

from datetime import UTC, datetime

import pytest

from processing.errors import Misconfigured
from processing.times import read_time


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-28", datetime(2026, 11, 28, tzinfo=UTC)),
        (" 2026-11-28T16:30 ", datetime(2026, 11, 28, 16, 30, tzinfo=UTC)),
        ("2026-11-28 16:30", datetime(2026, 11, 28, 16, 30, tzinfo=UTC)),
        ("2026-11-28T16:30:00Z", datetime(2026, 11, 28, 16, 30, tzinfo=UTC)),
        ("2026-11-28T18:30+02:00", datetime(2026, 11, 28, 16, 30, tzinfo=UTC)),
    ],
)
def test_a_time_is_utc_unless_it_has_an_offset(text: str, time: datetime) -> None:
    read = read_time("--since", text)
    assert read == time and read.tzinfo is UTC


@pytest.mark.parametrize("text", ["yesterday", "", "28.11.2026", "0001-01-01T00:00+10:00"])
def test_what_is_no_time_is_refused_with_the_name_of_the_option(text: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        read_time("--since", text)
    assert str(refusal.value).startswith(f"--since is {text!r}: it should be a day or a time, such as ")
