"""File names made safe for the log and the database."""


def printable(name: str) -> str:
    """Returns the name; bytes that are not UTF-8 and characters that are not printable are escaped."""
    # Not os.fsencode(): under LC_ALL=C that may know ASCII alone, and texts of the database have more.
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
