"""Runs the property tests of the parser for minutes, each with ever new seeds: python -m tests.fuzz."""

import random
import time
from collections.abc import Callable
from typing import Annotated, Any

import hypothesis
import typer

from tests.processing import test_differential, test_digits, test_fast_path, test_json_limits

FUZZERS: dict[str, Any] = {
    "blocks": test_fast_path.test_blocks_of_any_size_read_what_the_parser_reads,
    "differential": test_differential.test_a_document_is_read_as_the_rules_say,
    "structure": test_json_limits.test_keys_shape_and_elements_agree_with_a_plain_scanner,
    "depth": test_json_limits.test_depth_agrees_with_a_plain_scanner,
    "surrogates": test_json_limits.test_halves_are_found_as_python_finds_them,
    "integers": test_digits.test_long_integers_get_an_exponent_wherever_the_text_is_cut,
}


def fuzz(test: Any, seconds: float, first_seed: int) -> int:
    """Runs a property with one seed after another; returns the number of examples.

    Raises what the property raises, after Hypothesis has printed the smallest example.
    """
    examples = 0
    inner: Callable[..., None] = test.hypothesis.inner_test

    def counted(*arguments: Any, **named: Any) -> None:
        nonlocal examples
        examples += 1
        inner(*arguments, **named)

    test.hypothesis.inner_test = counted
    ends, seed = time.monotonic() + seconds, first_seed
    while time.monotonic() < ends:
        hypothesis.seed(seed)(test)()
        seed += 1
    return examples


def main(
    minutes: Annotated[float, typer.Option(help="Minutes for each property.")] = 10.0,
    only: Annotated[list[str] | None, typer.Option(help=", ".join(FUZZERS))] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed, to repeat a run.")] = None,
) -> None:
    """Prints for each property its first seed and the number of examples; stops at the first that fails."""
    for name in only or FUZZERS:
        first_seed = random.SystemRandom().randrange(10**6) * 1000 if seed is None else seed
        typer.echo(f"{name}: first seed {first_seed}", err=True)
        examples = fuzz(FUZZERS[name], minutes * 60, first_seed)
        typer.echo(f"{name:<13} {minutes:g} minutes  {examples:>9,} examples  0 failures")


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
