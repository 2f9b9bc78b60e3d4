"""Bounds of numbers, asked of PostgreSQL, and long ones on their way to the parser."""

from decimal import Decimal

import psycopg2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processing.digits import LongIntegers, is_storable
from processing.json_limits import JsonLimits
from tests.support import Server

NUMBERS = [
    *["1", "1.10", "-0.0", "1e5", "1E-400", "1e131071", "1e131072", "9.9e131071", "9.9E131072", "1e-16383"],
    *["1e-16384", "1.5e-16382", "1.5e-16383", "10e-16384", "1000e131068", "1000e131069", "0.1e131072"],
    *["1e200000", "-1e200000", "1e-200000", "1e999999999", "-1e-999999999", "0e-16383"],
    *["1" * 131_072, "1" * 131_073, "1" * 131_072 + "." + "2" * 16_383, "1" * 131_072 + "." + "2" * 16_384],
    *["0." + "1" * 16_383, "0." + "1" * 16_384, "1." + "0" * 16_384, "0." + "1" * 16_385 + "e2"],
]


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_are_storable_exactly_if_jsonb_accepts_them(server: Server, number: str) -> None:
    try:
        server.execute(f"SELECT '{number}'::jsonb::text")
        takes = True
    except psycopg2.errors.NumericValueOutOfRange:
        takes = False
    assert is_storable(Decimal(number)) is takes


LONG = "7" * 700
#: What comes, and what the parser gets.
TOKENS = [
    *[(text, text) for text in ("1", "-", "7" * 599, f"{LONG}.5", f"-0.{LONG}", f"{LONG}e5", f"1E-{LONG}")],
    *[(text, text) for text in (f'"{LONG}"', f'"\\"{LONG}"', f'"{LONG}\\\\"', f'"-{LONG} ,{LONG},"', "true")],
    *[(text, f"{text}e0") for text in (LONG, f"-{LONG}", "8" * 600, "1" + "0" * 2_000)],
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, len(TOKENS) - 1), max_size=6), st.integers(1, 2_000))
def test_long_integers_get_an_exponent_wherever_the_text_is_cut(chosen: list[int], size: int) -> None:
    tokens = [TOKENS[number] for number in chosen]
    text, passed = (f'{{"k":[{",".join(side)}]}}'.encode() for side in zip(("0", "0"), *tokens, strict=True))
    structure, integers, found = JsonLimits(), LongIntegers(), b""
    for start in range(0, len(text), size):
        opening, chunk = structure.opening, text[start : start + size]
        structure.feed(chunk)
        found += integers.feed(chunk, opening, structure)
    assert found == passed
