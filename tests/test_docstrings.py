"""Docstrings begin with a verb or a complete noun phrase, so that each can be read by itself."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.test_imports import MODULES, ROOMS, room_of

_QUESTIONS = "how what whatever when where whether which whichever who whoever whom whose why"
_PRONOUNS = """
    all anything both everybody everything he her his i it its nobody none nothing our ours she somebody
    something that their theirs them these they this those us we you your
"""
_PREPOSITIONS = """
    about above after against among around at before behind below beneath beside besides between beyond by
    during for from in inside into like near of off on onto out outside over per since through to toward
    towards under until up upon via with within without
"""
_CONJUNCTIONS = "although and as because but else if nor or so than though unless while yet"
_ADVERBS = "again also here just never not now once only then there thus"
_VALUES = "false true"
_VAGUE_VERBS = "tell tells told"

#: Words with which no docstring begins.
_FORBIDDEN = {
    "same",
    *" ".join((_QUESTIONS, _PRONOUNS, _PREPOSITIONS, _CONJUNCTIONS, _ADVERBS, _VALUES, _VAGUE_VERBS)).split(),
}

#: "The same" says no more than "it"; other nouns may have their article.
_FIRST_WORD = re.compile(r"(?:the\s+(?=same\b))?([\w']+)", re.IGNORECASE)

_SENTENCE = re.compile(r"[^\n]+?[.!?](?=\s|$)")

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Each docstring of a file with the number of its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, _Documented) and (docstring := ast.get_docstring(node)) is not None:
            yield node.body[0].lineno, docstring


def _begins_badly(docstring: str) -> bool:
    first = _FIRST_WORD.match(docstring)
    return first is not None and first.group(1).lower() in _FORBIDDEN


@pytest.mark.parametrize("room", ROOMS)
def test_a_docstring_begins_with_a_verb_or_a_noun_phrase(room: str) -> None:
    paths = [path for module, path in MODULES.items() if room_of(module) == room]
    found = [
        f"{path.relative_to(ROOT)}:{line}: {docstring.partition(chr(10))[0]}"
        for path in paths
        for line, docstring in _docstrings(path)
        if _begins_badly(docstring)
    ]
    assert found == [], "\n".join(["docstrings that begin with a word of tests/test_docstrings.py:", *found])


@pytest.mark.parametrize("module", [module for module, path in MODULES.items() if path.read_text()])
def test_a_module_says_in_one_sentence_on_one_line_what_it_is_for(module: str) -> None:
    """The diagram in docs/architecture.md shows it."""
    docstring = ast.get_docstring(ast.parse(MODULES[module].read_text()))
    assert docstring, "a module needs a docstring"
    first_paragraph = docstring.partition("\n\n")[0]
    assert _SENTENCE.findall(first_paragraph) == [first_paragraph]


@pytest.mark.parametrize(
    "docstring",
    [
        "What is left.",
        "of three the first",
        "Told by the first bytes.",
        "The same for links.",
        "None if gone.",
    ],
)
def test_the_rule_finds_a_bad_beginning(docstring: str) -> None:
    assert _begins_badly(docstring)


@pytest.mark.parametrize(
    "docstring",
    ["Returns the rows.", "The rows of a chunk.", "Each name once.", "Itself a file.", '"of" is a word.'],
)
def test_the_rule_lets_verbs_and_noun_phrases_pass(docstring: str) -> None:
    assert not _begins_badly(docstring)
