"""Parts of a page escape whatever they show, and numbers have their units."""

from datetime import datetime

import pytest

from db.present import Failure
from monitor.dashboard import markup, now_parts, numbers
from monitor.dashboard.markup import Bar, Column, Link, Notice, Problem, Tile

HOSTILE = "\"><script>alert(1)</script><img src=x onerror='alert(1)'>{{ 7 * 7 }}"

PARTS = [
    markup.tiles([Tile(HOSTILE, HOSTILE, HOSTILE, HOSTILE)]),
    markup.table([Column(HOSTILE)], [(HOSTILE,)]),
    markup.table([Column(HOSTILE)], [(Link(HOSTILE, HOSTILE),)]),
    markup.bars([Bar(HOSTILE, 1, "#fff", HOSTILE), Bar(Link(HOSTILE, HOSTILE), 1, "#fff")]),
    markup.notices(Notice(HOSTILE, "", HOSTILE, Link(HOSTILE, HOSTILE))),
    markup.problems([Problem(HOSTILE, HOSTILE, HOSTILE, [(HOSTILE, HOSTILE)])]),
]


@pytest.mark.parametrize("part", PARTS)
def test_a_hostile_name_is_text(part: str) -> None:
    assert "<script" not in part and "<img" not in part and "onerror='" not in part
    assert "&lt;script&gt;" in part and "{{ 7 * 7 }}" in part


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("a.json", "replay failed a.json"),
        ("a b.json", "replay failed &#39;a b.json&#39;"),
        ("$(rm -rf x).json", "replay failed &#39;$(rm -rf x).json&#39;"),
        ("-x.json", "replay failed ./-x.json"),
        ("it's.json", "replay failed &#39;it&#39;&#34;&#39;&#34;&#39;s.json&#39;"),
    ],
)
def test_a_command_may_be_pasted_into_a_shell(name: str, typed: str) -> None:
    part = now_parts.failures([Failure(name, datetime(2026, 11, 28), "why")])
    assert f"{typed}</code>" in part


def test_bars_of_nothing_have_no_length() -> None:
    assert "width: 0.0%" in markup.bars([Bar("a", 0, "#fff")])


@pytest.mark.parametrize(
    ("amount", "spelled"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (123_456, "123 kB"),
        (12_345_678, "12.3 MB"),
        (1.5e9, "1.5 GB"),
        (2e15, "2,000.0 TB"),
    ],
)
def test_a_size_has_a_unit(amount: int, spelled: str) -> None:
    assert numbers.size(amount) == spelled


@pytest.mark.parametrize(
    ("amount", "spelled"),
    [
        (None, (numbers.NONE, "")),
        (0.0037, ("3.7", "ms")),
        (0.25, ("250", "ms")),
        (3.21, ("3.2", "s")),
        (119.0, ("119", "s")),
        (600.0, ("10", "min")),
        (9000.0, ("2", "h")),
        (864_000.0, ("10", "days")),
    ],
)
def test_seconds_have_a_unit(amount: float | None, spelled: tuple[str, str]) -> None:
    assert numbers.seconds(amount) == spelled


@pytest.mark.parametrize(("amount", "spelled"), [(0, "0"), (3.5, "3.5"), (3.0, "3"), (1234.5, "1,234")])
def test_a_rate_has_a_decimal_if_it_is_small(amount: float, spelled: str) -> None:
    assert numbers.rate(amount) == spelled
