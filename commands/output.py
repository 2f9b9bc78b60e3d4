"""The encoding of standard output."""

import io
import sys


def for_people() -> None:
    """Escapes what the terminal's encoding lacks, and what of a path is not UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def for_programs() -> None:
    """Writes UTF-8 whatever the terminal can show: an escape would be wrong in JSON, and a value in CSV."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
