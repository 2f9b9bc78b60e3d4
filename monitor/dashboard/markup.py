"""Parts of a page as HTML, for the pages and for the report; whatever they show is escaped."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader
from msgspec import Struct

#: Names of files, vehicles and types come from outside.
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
)

STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")

Tone = Literal["", "good", "warn", "bad"]


class Link(Struct, frozen=True):
    """A text that leads to an address of ours."""

    text: str
    address: str


class Tile(Struct, frozen=True):
    """A number with its unit, and a line below it."""

    label: str
    value: str
    unit: str = ""
    note: str = ""
    tone: Tone = ""


class Column(Struct, frozen=True):
    """A column of a table: numbers stand on the right."""

    title: str
    kind: Literal["text", "number", "name"] = "text"


class Bar(Struct, frozen=True):
    """A name with a number, which is also shown as a length."""

    name: str | Link
    number: int
    colour: str
    note: str = ""


class Notice(Struct, frozen=True):
    """A sentence, and what to type or where to go then."""

    text: str
    tone: Tone = ""
    command: str = ""
    link: Link | None = None


class Problem(Struct, frozen=True):
    """A thing that needs a person: its name, since when and why, and what to type."""

    name: str
    when: str
    reason: str
    steps: list[tuple[str, str]]


def tiles(items: Sequence[Tile]) -> str:
    return _render("tiles", items)


def table(columns: Sequence[Column], rows: Iterable[Sequence[str | Link]]) -> str:
    return _render("table", columns, list(rows))


def bars(items: Sequence[Bar]) -> str:
    return _render("bars", items)


def notices(*items: Notice) -> str:
    return _render("notices", items)


def problems(items: Sequence[Problem]) -> str:
    return _render("problems", items)


def _render(macro: str, *values: object) -> str:
    return str(getattr(TEMPLATES.get_template("parts.html").module, macro)(*values))
