"""Writes the rooms and their arrows into docs/architecture.md: python -m tests.diagram."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator

from tests.support import ROOT
from tests.test_imports import MODULES, ROOMS, room_of

PAGE = ROOT / "docs" / "architecture.md"

_BEGIN = "<!-- begin of the diagram: made by `make diagram` from tests/test_imports.py -->\n"
_END = "<!-- end of the diagram -->\n"

_INDENT = "  "
_NAME_COLUMNS = 18


def with_diagram(page: str) -> str:
    """The page with a diagram of today between its two marker comments."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin and end, f"{PAGE} lacks one of its marker comments"
    return f"{before}{begin}{_diagram()}{end}{after}"


def _diagram() -> str:
    picture = "\n".join(["```mermaid", "flowchart TD", *_arrows(), "```"])
    text = "\n".join(_lines()).rstrip("\n")
    return f"{picture}\n\n```\n{text}\n```\n"


def _arrows() -> Iterator[str]:
    """One arrow for each pair of rooms; a dotted one where only some modules may be imported."""
    for room, row in ROOMS.items():
        for target in dict.fromkeys(room_of(name) for name in sorted(row.imports)):
            line = "-->" if target in row.imports else "-.->"
            yield f"{_INDENT}{room} {line} {target}"


def _lines() -> Iterator[str]:
    """Each room with its purpose and imports, then a line for each of its modules."""
    for room, row in ROOMS.items():
        files = [module for module in MODULES if module.startswith(f"{room}.")]
        yield _columns(f"{room}.py" if room in MODULES and not files else f"{room}/", row.does)
        yield _columns("", f"→ {_grouped(row.imports) or 'imports nothing of ours'}")
        for module in files:
            if (purpose := _purpose(module)) is not None:
                yield _INDENT + _columns(module.removeprefix(f"{room}."), purpose)
        yield ""


def _columns(name: str, text: str) -> str:
    return f"{name:{_NAME_COLUMNS - 1}} {text}"


def _grouped(names: Iterable[str]) -> str:
    """Rooms and modules in one line: "config, processing.{errors, sink}"."""
    modules: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        room, _, module = name.partition(".")
        modules[room] += [module] if module else []
    return ", ".join(_braced(room, inside) for room, inside in modules.items())


def _braced(room: str, modules: list[str]) -> str:
    if len(modules) > 1:
        return f"{room}.{{{', '.join(modules)}}}"
    return ".".join([room, *modules])


def _purpose(module: str) -> str | None:
    """The first line of a module's docstring; packages have none."""
    docstring = ast.get_docstring(ast.parse(MODULES[module].read_text()))
    return docstring.partition("\n")[0] if docstring else None


if __name__ == "__main__":
    PAGE.write_text(with_diagram(PAGE.read_text()))
