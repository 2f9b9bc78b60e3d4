"""Draws the picture of the live view for README: python -m tests.monitor.picture docs/terminal.png."""

import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from pyte.screens import Char
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tests.monitor.session import MAIN, Session, session
from tests.support import Daemon, detections, event, report, running_server, statuses, until


def draw(person: Session, path: Path, title: str) -> None:
    """Writes what is on the screen as SVG, and converts it to PNG by rsvg-convert."""
    console = Console(record=True, width=person.columns, file=io.StringIO(), highlight=False)
    for line in person.cells():
        console.print(Text.assemble(*spans(line)), soft_wrap=True)
    form = CONSOLE_SVG_FORMAT.replace("Fira Code", "DejaVu Sans Mono")
    svg = console.export_svg(title=title, code_format=form, font_aspect_ratio=0.602)
    path.with_suffix(".svg").write_text(svg)
    subprocess.run(["rsvg-convert", "-o", path, path.with_suffix(".svg")], check=True)
    path.with_suffix(".svg").unlink()


def spans(line: list[Char]) -> Iterator[tuple[str, str]]:
    for (colour, bold), cells in groupby(line, key=lambda cell: (cell.fg, cell.bold)):
        words = ["bold"] if bold else []
        words += [] if colour == "default" else [colour if colour.isalpha() else f"#{colour}"]
        yield "".join(cell.data for cell in cells), " ".join(words).replace("brown", "yellow")


def main(path: Path, columns: int, rows: int) -> None:
    with running_server("fsync=off") as server, tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        daemon = Daemon(Path(folder) / "fleet", server.url())
        daemon.incoming.mkdir(parents=True)
        (daemon.folder / ".env").touch()
        environment = {**daemon.environment(), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        with session(daemon.folder, environment, columns, rows) as person:
            person.type(f"clear; {MAIN}\r")
            person.until_shown("database ok", 30)
            for number in range(3):
                daemon.drop(f"objects_detection_165446295{number}.json", detections(event(number)))
                time.sleep(0.4)
            daemon.drop("vehicles_status_1651788155.json", statuses(report(1), {"vehicle_id": "x"}))
            daemon.drop("vehicles_status_1651788156.json", b'{"vehicle_status": [tru')
            person.until_shown("1 failed file")
            many = [event(n % 3600, ("cars", 1), ("signs", 2), vehicle=f"v{n}") for n in range(400_000)]
            large = detections(*many)
            for number in range(15_000):
                daemon.drop(f"vehicles_status_{number}.json", statuses(report(vehicle=f"v{number}")))
                if number == 5_000:
                    daemon.drop("objects_detection_1654466554.json", large)
            both = re.compile(r"backlog .* left\n.*[2-9]\d %.* MB .* left")
            until(lambda: both.search(person.text()), 60)
            draw(person, path, "python main.py")
            print("\n".join(person.lines()))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100, 26)
