"""Numbers, sizes and times as people read them, each with its unit."""

from datetime import datetime

#: In place of a number that is not known.
NONE = "\N{EN DASH}"


def count(number: int) -> str:
    return f"{number:,}"


def rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:,.1f}"


def size(bytes_: int) -> str:
    amount = float(bytes_)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:,.0f} {unit}" if unit == "bytes" or amount >= 100 else f"{amount:,.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


def seconds(amount: float | None) -> tuple[str, str]:
    """Returns a duration and its unit."""
    if amount is None:
        return NONE, ""
    if amount < 1:
        return f"{1000 * amount:,.1f}" if amount < 0.1 else f"{1000 * amount:,.0f}", "ms"
    if amount < 120:
        return f"{amount:,.1f}" if amount < 10 else f"{amount:,.0f}", "s"
    if amount < 7200:
        return f"{amount / 60:,.0f}", "min"
    return (f"{amount / 3600:,.0f}", "h") if amount < 172_800 else (f"{amount / 86_400:,.0f}", "days")


def time(moment: datetime) -> str:
    """Returns a time to the second; whoever shows it says that it is UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"
