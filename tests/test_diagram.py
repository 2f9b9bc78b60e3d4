"""The diagram in docs/architecture.md."""

from tests.diagram import PAGE, with_diagram
from tests.test_imports import MODULES, ROOMS


def test_the_page_shows_the_rooms_as_they_are() -> None:
    page = PAGE.read_text()
    assert page == with_diagram(page), "the diagram is stale: run make diagram"


def test_every_room_and_every_module_has_a_line() -> None:
    shown = {line.split()[0].strip("/") for line in PAGE.read_text().splitlines() if line.strip()}
    modules = {module.partition(".")[2] for module, path in MODULES.items() if path.stem != "__init__"}
    assert {*ROOMS, *modules} - {"main", "config", ""} <= shown
