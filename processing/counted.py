"""Numbers with what they count, as a person reads them."""

from processing.sink import Counts


def counted(number: int, what: str, plural: str = "") -> str:
    """Returns "1 file" or "1,240 files"; a plural without "s" has to be given."""
    return f"{number:,} {noun(number, what, plural)}"


def noun(number: float, what: str, plural: str = "") -> str:
    """Returns the singular for 1, else the plural."""
    return what if number == 1 else plural or f"{what}s"


def format_counts(counts: Counts) -> str:
    """Returns what became of records, as a sum."""
    parts = f"{counts.inserted:,} inserted + {counts.duplicate:,} duplicate"
    return f"{counts.read:,} = {parts} + {counts.rejected:,} rejected"
