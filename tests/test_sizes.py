"""No function and no file of the product grows beyond what can be read at once."""

import ast
from pathlib import Path

import pytest

from tests.test_imports import MODULES

_FUNCTION_LINES = 30
_FILE_LINES = 350


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of code from the first statement to the last; the signature and the docstring do not count."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", MODULES.values(), ids=list(MODULES))
def test_no_function_is_longer_than_a_page(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text()))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {function.name: _body_lines(function) for function in functions}
    assert {name: lines for name, lines in lengths.items() if lines > _FUNCTION_LINES} == {}


@pytest.mark.parametrize("path", MODULES.values(), ids=list(MODULES))
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= _FILE_LINES
