"""File names as they may be logged and stored."""

import os


def printable(name: str) -> str:
    """The name with bytes that are not UTF-8 and characters that are not printable escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
