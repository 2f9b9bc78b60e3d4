"""Commands of running it for good, as they are typed: recall, maintain, backup, restore.

Each imports what it does when it is typed: the daemon, which starts from the same main.py, needs none of it.
"""

from pathlib import Path
from typing import Annotated

import typer

from commands.everyday import TIME
from config import load_settings
from processing.times import read_time
from service import database


def add_to(app: typer.Typer) -> None:
    """Adds the commands to those of the program."""
    app.command("recall")(recall_files)
    app.command("maintain")(maintain_tables)
    app.command("backup")(back_up)
    app.command("restore")(restore)


def recall_files(
    names: Annotated[list[str] | None, typer.Argument(help="Names of files, as the ledger has them.")] = None,
    file_id: Annotated[list[int] | None, typer.Option(help="A file by its number in the ledger.")] = None,
    since: Annotated[str | None, typer.Option(help=f"All files that were loaded since {TIME}.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Takes what loaded files brought out of the tables again.

    That is their rows, rejected records, and replays of these. Then the same files, or corrected ones, may be
    loaded. Needs the rights of the tables' owner. Exits with 0 if all chosen files were recalled.
    """
    from commands import recall
    from commands.person import who

    choice = recall.Choice(names or (), file_id or (), read_time("--since", since) if since else None)
    settings = load_settings()
    with (
        database.open_database(settings) as ensure_running,
        database.connected_to_load(settings, ensure_running()) as connection,
    ):
        if dry_run:
            raise typer.Exit(recall.preview(connection, choice, typer.echo))
        raise typer.Exit(recall.run(connection, choice, who(), typer.echo))


def maintain_tables() -> None:
    """Does the daemon's housekeeping now.

    Drops days older than RETENTION_DAYS, and gives days with rows in a partition "other" their own. The
    daemon does so by itself. Exits with 0 if nothing is left to do.
    """
    from commands import maintain

    settings = load_settings()
    with (
        database.open_database(settings) as ensure_running,
        database.connected_to_load(settings, ensure_running()) as connection,
    ):
        connection.autocommit = True
        raise typer.Exit(maintain.run(settings, connection, typer.echo))


def back_up(file: Annotated[Path, typer.Argument(help="The file to write; it is replaced.")]) -> None:
    """Writes the embedded database into a file.

    As it is at one instant; the daemon may load meanwhile.
    """
    from commands import backup

    settings = load_settings()
    backup.refuse_outside(settings)
    with database.open_database(settings) as ensure_running:
        backup.back_up(ensure_running(), file, typer.echo)


def restore(file: Annotated[Path, typer.Argument(help="A file that backup wrote.")]) -> None:
    """Makes a database from a backup.

    A new embedded one, or one on your server, which has to be empty.
    """
    from commands import backup

    settings = load_settings()
    backup.check(file)
    with database.open_database(settings, may_create=True, accepts_new=True) as ensure_running:
        backup.restore(ensure_running(), file, typer.echo)
