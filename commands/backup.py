"""Writes the embedded database into a file, and makes a database from such a file."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from config import Settings
from db import dump
from db.connection import Database
from processing.counted import counted, noun
from processing.errors import Misconfigured
from processing.printable import printable

Report = Callable[[str], None]


def refuse_outside(settings: Settings) -> None:
    """Raises Misconfigured for a database of the user's own, which other tools take care of."""
    if settings.outside_database is not None:
        raise Misconfigured(
            "backup is for the embedded database: for your own server use its tools, such as pg_dump"
        )


def back_up(database: Database, file: Path, report: Report) -> None:
    size = dump.write(database, file)
    report(f"{printable(str(file))}: {counted(size, 'byte')}")


def check(file: Path) -> None:
    """Raises Misconfigured before anything is made if the file is no backup."""
    if not file.is_file():
        raise Misconfigured(f"{printable(str(file))} is no file")
    dump.check(file)


def restore(database: Database, file: Path, report: Report) -> None:
    """Makes the tables with all rows in one transaction."""
    with closing(database.connect()) as connection:
        dump.read(connection, file)
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*), max(finished_at) FROM mobileye_data.ingested_files")
            ((files, latest),) = cursor.fetchall()
    until = f", the last one finished at {latest:%Y-%m-%d %H:%M:%S} UTC" if latest else ""
    report(f"{counted(files, 'file')} {noun(files, 'is', 'are')} in the ledger{until}")
