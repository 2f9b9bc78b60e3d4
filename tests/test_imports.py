"""Imports go one way, told by the source: each part of the line knows only what stands behind it."""

import ast
import sys
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support import ROOT

PARTS = ("watcher", "processing", "db", "commands")
SOURCES = [
    ROOT / "main.py",
    ROOT / "config.py",
    *sorted(p for part in PARTS for p in (ROOT / part).rglob("*.py")),
]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in SOURCES}


def named(path: Path) -> set[str]:
    """All that a module imports, as full names; "from a import b" may mean a module a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(name: str) -> str:
    """The module of ours that a full name leads to, if any."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def imports(module: str) -> set[str]:
    return {found for name in named(MODULES[module]) if (found := ours(name))}


def imports_of_part(part: str) -> set[str]:
    """What a part imports of the others."""
    inside = [module for module in MODULES if module.partition(".")[0] == part]
    found = {name for module in inside for name in imports(module)}
    return {name for name in found if name.partition(".")[0] != part}


@pytest.mark.parametrize(
    ("part", "allowed"),
    [
        ("watcher", set()),
        ("processing", set()),
        ("db", {"processing.errors", "processing.validation", "processing.records", "processing.sink"}),
        ("config", {"processing.errors", "sources.disposal", "watcher.observer"}),
    ],
)
def test_a_part_imports_exactly_what_it_may(part: str, allowed: set[str]) -> None:
    assert imports_of_part(part) == allowed


def test_only_main_imports_commands() -> None:
    others = [module for module in MODULES if not module.startswith("commands") and module != "main"]
    assert {m for m in others if any(name.startswith("commands") for name in imports(m))} == set()


def test_nothing_imports_main() -> None:
    assert [module for module in MODULES if "main" in imports(module)] == []


def test_there_is_no_import_cycle() -> None:
    graph = {module: imports(module) - {module} for module in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_only_the_database_part_and_commands_know_psycopg2() -> None:
    knows = {m for m in MODULES if any(name.partition(".")[0] == "psycopg2" for name in named(MODULES[m]))}
    assert {module.partition(".")[0] for module in knows} == {"db", "commands", "config"}


def test_only_the_watcher_knows_watchdog() -> None:
    knows = {m for m in MODULES if any(name.partition(".")[0] == "watchdog" for name in named(MODULES[m]))}
    assert knows == {"watcher.handler", "watcher.inotify", "watcher.observer"}


def test_only_config_reads_the_environment() -> None:
    readers = {m for m in MODULES if {"environ", "getenv"} & words(MODULES[m])}
    assert readers - {"db.embedded.keeper"} == set(), "the keeper passes its own on to the server"


def words(path: Path) -> set[str]:
    return {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}


def test_no_folder_or_module_at_the_top_is_named_like_an_installed_package() -> None:
    here = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert here >= {"main", "config", *PARTS, "tests"}
    assert here & {*packages_distributions(), *sys.stdlib_module_names} == set()


def test_every_folder_of_tests_is_a_package() -> None:
    """Else tests/db would shadow db."""
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
