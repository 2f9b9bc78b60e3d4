"""Describes a fault of this program: without its own text, which may quote a file."""

import os
import traceback


def describe(error: Exception) -> str:
    """Returns the kind of an error and the place where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{_kind(error)} File {frame.filename}, line {frame.lineno}, in {frame.name}"


def _kind(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return f"{type(error).__name__} ({os.strerror(error.errno)})"
    return type(error).__name__
