"""Measures files whose rows the database knows or refuses, by their size: python -m benchmarks.rejects."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import ours
from benchmarks.files import KINDS, Made, make_files
from benchmarks.server import execute, make_partitions, running_server

_TABLE = "mobileye_data.objects_detection_events"

#: Events are 17 ms apart: this is true for one of a hundred.
_HUNDREDTH = "(extract(epoch FROM detection_time) * 1000)::bigint % 100 = 0"

_TRIGGER = f"""
    CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'not this one'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON {_TABLE}
    FOR EACH ROW WHEN ((extract(epoch FROM new.detection_time) * 1000)::bigint % 100 = 0)
    EXECUTE FUNCTION public.refuse()
"""

#: The statement that makes the database refuse rows, by the name of the case.
REFUSALS = {
    "1 % refused (check)": f"ALTER TABLE {_TABLE} ADD CHECK (NOT ({_HUNDREDTH}))",
    "1 % refused (trigger)": _TRIGGER,
    "all refused (check)": f"ALTER TABLE {_TABLE} ADD CHECK (object_value < 0)",
}

#: Changes of a file's text that leave its keys as they are, by the name of the case.
REPEATS: dict[str, Callable[[bytes], bytes]] = {
    "duplicates": lambda text: text + b" ",
    "conflicts": lambda text: text.replace(b'"object_value": ', b'"object_value": 1'),
}


def load(url: str, texts: list[bytes]) -> tuple[float, tuple[int, ...]]:
    """Loads one file after another; returns the seconds of the last and its counts in the ledger."""
    with ours.running(url) as daemon, tempfile.TemporaryDirectory(dir=daemon.folder.parent) as folder:
        make_partitions(url)
        for number, text in enumerate(texts, 1):
            (Path(folder) / f"{KINDS[0]}_{number}.json").write_bytes(text)
            seconds = daemon.load(Path(folder), number)
    statement = (
        "SELECT rows_read, rows_inserted, rows_duplicate, rows_rejected FROM mobileye_data.ingested_files"
    )
    return seconds, execute(url, f"{statement} ORDER BY file_id DESC LIMIT 1")[0]


def main(
    rows: Annotated[list[int] | None, typer.Option(help="Rows of a file; may be repeated.")] = None,
    only: Annotated[list[str] | None, typer.Option(help=", ".join([*REPEATS, *REFUSALS]))] = None,
) -> None:
    """Prints the seconds of each case and size, and what became of the rows."""
    with running_server() as server, tempfile.TemporaryDirectory(prefix="benchmark-rejects-") as folder:
        print("case                        rows  seconds  read, inserted, duplicate, rejected")
        for count in rows or [10_000, 100_000, 1_000_000]:
            made: Made = make_files(Path(folder) / str(count), [count], seed=1)[0]
            text = made.path.read_bytes()
            for case in only or ["as new", *REPEATS, *REFUSALS]:
                with server.empty_database() as url:
                    if case in REFUSALS:
                        with ours.running(url):  # applies the schema
                            pass
                        execute(url, REFUSALS[case])
                    texts = [text, REPEATS[case](text)] if case in REPEATS else [text]
                    seconds, counts = load(url, texts)
                print(
                    f"{case:<22} {count:>9,} {seconds:>8.2f}  {', '.join(f'{n:,}' for n in counts)}",
                    flush=True,
                )


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
