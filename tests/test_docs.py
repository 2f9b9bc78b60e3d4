"""The documents for developers: what they point at is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.test_imports import MODULES

PAGES = [
    ROOT / "CONTRIBUTING.md",
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "tests" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))

_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")

#: A path from the root, in code quotes: with a folder, or a document's name.
_PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|sql|txt|yml)|[A-Z]+\.md)`")

#: A module without its folder.
_MODULE = re.compile(r"`(\w+\.py)`")

#: A function or a method of ours, in Python or SQL; those of libraries stand behind the name of their module.
_FUNCTION = re.compile(r"`(\w+)\(\)`")
_DEFINED = re.compile(r"^ *(?:def|CREATE OR REPLACE FUNCTION) (?:mobileye_data\.)?(\w+)\(", re.MULTILINE)

#: A test by its name.
_TEST = re.compile(r"`(test_\w+)`")

SOURCES = [*MODULES.values(), ROOT / "schema.sql"]
FUNCTIONS = {name for path in SOURCES for name in _DEFINED.findall(path.read_text())}
TESTS = {name for path in (ROOT / "tests").rglob("*.py") for name in _DEFINED.findall(path.read_text())}
MODULE_NAMES = {path.name for path in [*SOURCES, *(ROOT / "tests").glob("*.py")]}


def _missing(page: Path) -> Iterator[str]:
    text = page.read_text()
    yield from (name for name in _MODULE.findall(text) if name not in MODULE_NAMES)
    yield from (name for name in _TEST.findall(text) if name not in TESTS)
    yield from (f"{name}()" for name in _FUNCTION.findall(text) if name not in FUNCTIONS)
    yield from (link for link in _LINK.findall(text) if not (page.parent / link).exists())
    yield from (path for path in _PATH.findall(text) if not (ROOT / path).exists())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_path_module_and_function_that_a_page_names_is_there(page: Path) -> None:
    assert list(_missing(page)) == []


def test_the_index_lists_every_decision_in_order() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    assert re.findall(r"\((\d{4}-[\w-]+\.md)\)", index) == [page.name for page in DECISIONS]


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_a_date_its_context_and_its_figures(page: Path) -> None:
    headings = re.findall(r"^(?:#+ .*|Date:(?= \d{4}-\d\d-\d\d$))", page.read_text(), re.MULTILINE)
    number = int(page.name[:4])
    assert headings[0].startswith(f"# {number}. ")
    assert headings[1:] == ["Date:", "## Context", "## Decision", "## Figures"]


def test_the_glossary_is_in_order_and_explains_each_word_once() -> None:
    words = re.findall(r"^\| ([a-z -]+) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)[1:]
    assert words == sorted(set(words))
