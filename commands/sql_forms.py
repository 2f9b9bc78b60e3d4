"""Prints pages of rows as a table, CSV or JSON."""

import csv
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from enum import StrEnum
from math import isfinite
from typing import Any

from msgspec import DecodeError, Raw, json
from rich.cells import cell_len

from commands import output
from processing.counted import counted
from processing.printable import printable

Page = list[tuple[Any, ...]]

#: Characters of a value that a table shows.
MAX_CELL = 100


class Form(StrEnum):
    """The form in which rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def show(columns: list[str], pages: Iterator[Page], form: Form) -> None:
    """Prints rows on standard output, page by page."""
    if form is Form.TABLE:
        _show_table(columns, pages)
        return
    output.for_programs()
    if form is Form.CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        for page in pages:
            writer.writerows([[_plain(value) for value in row] for row in page])
    else:
        _show_json(columns, pages)


# Tables -------------------------------------------------------------------------------------------


def _show_table(columns: list[str], pages: Iterator[Page]) -> None:
    """Prints a table; a later page with longer values widens its columns from there on."""
    column, head_column, line, crossing, mark = "│┃━╇…" if _can_print("│┃━╇…") else "||-+~"
    heads = [_cut(printable(name), mark) for name in columns]
    widths = [cell_len(head) for head in heads]
    count, is_cut, is_number = 0, False, [False] * len(heads)
    for page in pages:
        # Printable: text from a dropped file must not control the terminal.
        rows = [[_cell(value, mark) for value in row] for row in page]
        is_cut = is_cut or any(len(cell) > MAX_CELL for row in rows for cell in row)
        widths = [
            max(width, *(map(_width, cells)))
            for width, cells in zip(widths, zip(*rows, strict=True), strict=False)
        ] or widths
        if not count:
            is_number = [_are_numbers(values) for values in zip(*page, strict=True)] or is_number
            print(_line(heads, widths, is_number, head_column))  # noqa: T201
            print(crossing.join(line * (width + 2) for width in widths))  # noqa: T201
        sys.stdout.writelines(f"{_line(row, widths, is_number, column)}\n" for row in rows)
        count += len(page)
    cut = ", long values cut: --csv and --json print them whole" if is_cut else ""
    print(f"({counted(count, 'row')}{cut})")  # noqa: T201


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _cell(value: Any, mark: str) -> str:
    text = _plain(value)
    # Cut before, too: a value may have megabytes.
    return _cut(printable(text[: MAX_CELL + 1]), mark)


def _cut(text: str, mark: str) -> str:
    return text if len(text) <= MAX_CELL else text[:MAX_CELL] + mark


def _width(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float | Decimal | None) for value in values)


def _line(cells: Sequence[str], widths: Sequence[int], is_number: Sequence[bool], column: str) -> str:
    padded = []
    for cell, width, right in zip(cells, widths, is_number, strict=True):
        blanks = " " * (width - _width(cell))
        padded.append(f" {blanks}{cell} " if right else f" {cell}{blanks} ")
    return column.join(padded).rstrip()


# JSON ---------------------------------------------------------------------------------------------


def _show_json(columns: list[str], pages: Iterator[Page]) -> None:
    """Prints one array of objects, laid out to be edited."""
    names = [json.encode(name) + b":" for name in told_apart(columns)]
    between = "["
    for page in pages:
        if page:
            sys.stdout.write(between + _laid_out(_json_of(names, page)).decode()[1:-1].rstrip("\n"))
            between = ","
    sys.stdout.write("[]\n" if between == "[" else "\n]\n")


def told_apart(columns: Sequence[str]) -> list[str]:
    """Returns the names, with a number behind each that a column before it has: name, name_2."""
    names: list[str] = []
    for column in columns:
        name, number = column, 1
        while name in names or (number > 1 and name in columns):
            number += 1
            name = f"{column}_{number}"
        names.append(name)
    return names


def _json_of(names: Sequence[bytes], page: Page) -> bytes:
    objects = [
        b"{" + b",".join(name + _json(value) for name, value in zip(names, row, strict=True)) + b"}"
        for row in page
    ]
    return b"[" + b",".join(objects) + b"]"


def _json(value: Any) -> bytes:
    """Formats a value; numbers keep all digits; NaN and infinity become text, as in to_json()."""
    if isinstance(value, list):
        return b"[" + b",".join(map(_json, value)) + b"]"
    if (isinstance(value, float) and not isfinite(value)) or (
        isinstance(value, Decimal) and not value.is_finite()
    ):
        return json.encode(str(Decimal(value)))
    return _ENCODER.encode(value)


_ENCODER = json.Encoder(enc_hook=str, decimal_format="number")


def _laid_out(text: bytes) -> bytes:
    """Indents JSON without changing any value."""
    try:
        return json.format(text, indent=2)
    except (
        DecodeError,
        RecursionError,
    ):  # half of a surrogate pair or a thousand levels, which json can hold
        return text


def _plain(value: Any) -> str:
    match value:
        case str():
            return value
        case None:
            return ""
        case float():
            return str(value) if isfinite(value) else str(Decimal(value))  # as the database writes it
        case bytes() | memoryview():
            return bytes(value).hex()
        case Raw():
            return bytes(value).decode()
        case Decimal():
            return f"{value:f}"
        case list():
            return _json(value).decode()
        case _:
            return str(value)
