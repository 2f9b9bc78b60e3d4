"""The command line: python main.py watches and loads; --help tells the rest."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from commands import check, demo, replay, run, sql, status, verify
from commands.replay import Reason
from config import load_settings
from processing.errors import DatabaseUnavailable, Misconfigured
from service import database
from service.outage import TimedOut
from service.signals import StopSignal

app = typer.Typer(
    help="Loads the JSON files of a fleet from a folder into PostgreSQL, every row exactly once.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


_ONCE = (
    "Load what is there now, then exit: 0 if all was loaded, "
    "1 if anything failed or still waits, or the database does not answer for 30 s."
)


@app.callback(invoke_without_command=True)
def watch(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help=_ONCE)] = False,
) -> None:
    """Watches the folder and loads files until Ctrl+C or SIGTERM."""
    if context.invoked_subcommand is None:
        raise typer.Exit(run.run(load_settings(), once=once))


@app.command("status")
def show_status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Tells what is waiting, what was loaded and what failed."""
    settings = load_settings()
    with (
        database.open_database(settings) as ensure_running,
        database.connected(ensure_running()) as connection,
    ):
        status.show(status.gather(settings, connection), as_json)


@app.command("sql")
def run_sql(
    statement: Annotated[str, typer.Argument(help='Such as "select * from vehicle_status".')],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Queries the database and prints the rows."""
    form = sql.Form.CSV if as_csv else sql.Form.JSON if as_json else sql.Form.TABLE
    with (
        database.open_database(load_settings()) as ensure_running,
        database.connected(ensure_running()) as connection,
    ):
        sql.run(connection, statement, form)


@app.command("url")
def print_url() -> None:
    """Prints the database's URL, password included, for psql and other tools."""
    with database.open_database(load_settings()) as ensure_running:
        typer.echo(ensure_running().url)


@app.command("demo")
def run_demo(
    rate: Annotated[float, typer.Option(min=0, help="Files a second; 0: a backlog, at once.")] = 20,
    count: Annotated[int | None, typer.Option(min=1, help="Files in all; else until Ctrl+C.")] = None,
    records: Annotated[int, typer.Option(min=1, help="Records in a file.")] = 12,
    vehicles: Annotated[int, typer.Option(min=1, help="Vehicles in the fleet.")] = 2000,
    seed: Annotated[int | None, typer.Option(help="Makes the same fleet again.")] = None,
) -> None:
    """Writes the files of a made-up fleet into the watch folder."""
    stop = StopSignal()
    with stop.on_signals():
        demo.run(
            load_settings().folder,
            rate=rate,
            count=count,
            records=records,
            vehicles=vehicles,
            seed=seed,
            stop=stop.event,
            report=lambda line: typer.echo(line, err=True),
        )


@app.command("check")
def check_files(
    files: Annotated[list[Path], typer.Argument(help="Any files; they need not be in the watch folder.")],
) -> None:
    """Tells what would become of files, each by itself, and leaves them and the tables as they are.

    Their rows are written in a transaction that is rolled back; only partitions for their days may stay.
    Exits with 0 if all of them would load without a reject.
    """
    settings = load_settings()
    with database.open_database(settings) as ensure_running, database.connected(ensure_running()):
        raise typer.Exit(check.run(settings, ensure_running(), files, typer.echo))


@app.command("verify")
def verify_all() -> None:
    """Compares ledger, tables and folders, and tells each thing that does not add up.

    Reads all rows. Exits with 0 if everything adds up. Files in the hands of a running daemon are passed
    over, but one may be told that it is about to delete or to set aside.
    """
    settings = load_settings()
    with (
        database.open_database(settings) as ensure_running,
        database.connected(ensure_running()) as connection,
    ):
        raise typer.Exit(verify.run(settings, connection, typer.echo))


replay_app = typer.Typer(help="Loads again what was mended: files of failed/, or rejected records.")
app.add_typer(replay_app, name="replay")


@replay_app.command("failed")
def replay_failed(
    names: Annotated[list[Path] | None, typer.Argument(help="Files in failed/; none: all of them.")] = None,
) -> None:
    """Loads files of the failed folder, as they are there now.

    Whatever is loaded goes from there, with its note. Exits with 0 if all of them were loaded.
    """
    settings = load_settings()
    with database.open_database(settings) as ensure_running, database.connected(ensure_running()):
        raise typer.Exit(replay.files(settings, ensure_running(), names or [], typer.echo))


@replay_app.command("rejected")
def replay_rejected(
    file: Annotated[str | None, typer.Option(help="Those of this file, as the ledger names it.")] = None,
    reason: Annotated[Reason | None, typer.Option(help="Those with this reason.")] = None,
    edited: Annotated[
        Path | None,
        typer.Option(help="A JSON array of objects with file_id, position and the mended original."),
    ] = None,
) -> None:
    """Loads rejected records: all that are open, or some, or the edited ones of a file.

    To edit some, write them into a file with: sql "select * from open_rejects" --json. Those that are
    loaded are resolved, the others stay open. Exits with 0 if all of them were loaded.
    """
    if edited and (file or reason):
        raise Misconfigured("--edited names its records itself: without --file and --reason")
    settings = load_settings()
    with database.open_database(settings) as ensure_running, database.connected(ensure_running()):
        if edited:
            raise typer.Exit(replay.edited_records(settings, ensure_running(), edited, typer.echo))
        raise typer.Exit(replay.records(settings, ensure_running(), file, reason, typer.echo))


def main() -> int:
    """One clear sentence and a code for what a user can cause: 2 if settings or rights have to be mended."""
    try:
        code = app(standalone_mode=False)
    except typer.Exit as ending:
        return ending.exit_code
    except typer.TyperException as error:
        return _complain(error.format_message(), 2)
    except Misconfigured as error:
        return _complain(str(error), 2)
    except (DatabaseUnavailable, TimedOut, sql.QueryFailed, OSError) as error:
        return _complain(str(error), 1)
    return code or 0


def _complain(what: str, code: int) -> int:
    typer.echo(f"error: {what}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
