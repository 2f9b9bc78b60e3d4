"""File names made safe for the log and the database."""

import re

#: Surrogates that no byte of a name is decoded to: those bytes are DC80 to DCFF.
_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def printable(name: str) -> str:
    """Returns the name; bytes that are not UTF-8 and characters that are not printable are escaped."""
    if name.isprintable():
        return name
    # Half of a pair, as JSON may have it, stands for no byte of a name.
    text = _HALF.sub(lambda half: half[0].encode("unicode_escape").decode(), name)
    # Not os.fsencode(): under LC_ALL=C that may know ASCII alone, and texts of the database have more.
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
