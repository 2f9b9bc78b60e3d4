"""Commands of every day, as they are typed: status, sql, url, check, verify, replay, dashboard, report, demo.

Each imports what it does when it is typed: none waits for what only others need.
"""

from pathlib import Path
from typing import Annotated

import typer

from commands.packages import packages_of
from config import load_settings
from processing.errors import DatabaseUnavailable, Misconfigured
from processing.records import Reason
from processing.times import read_time
from service import database
from service.signals import StopSignal

#: A time that a person types, as --help describes it.
TIME = "a day or a time such as 2026-11-28T16:30, which is UTC if it has no offset"


def add_to(app: typer.Typer) -> None:
    """Adds the commands to those of the program."""
    app.command("status")(show_status)
    app.command("sql")(run_sql)
    app.command("url")(print_url)
    app.command("check")(check_files)
    app.command("verify")(verify_all)
    replay = typer.Typer(help="Loads fixed files of failed/, or rejected records, again.")
    replay.command("failed")(replay_failed)
    replay.command("rejected")(replay_rejected)
    app.add_typer(replay, name="replay")
    app.command("dashboard")(show_dashboard)
    app.command("report")(write_report)
    app.command("demo")(run_demo)


def show_status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if something needs a person, for monitoring.")
    ] = False,
) -> None:
    """Shows whether a daemon runs, what waits and what failed.

    And what was loaded, and which commands to type next.

    Something needs a person if no daemon watches the folder, the database does not answer, a failed file was
    neither replayed nor dismissed, or a file has waited for an hour. Rejected records do not count.
    The same if messages of topics are missing, if no consumer is in the group, or if Kafka does not answer.
    """
    from commands import status
    from service import published as publishing
    from service.kept_client import KeptClient

    settings = load_settings()
    client = KeptClient(settings.s3_endpoint_url)
    published = publishing.find(settings, client)
    if published is not None and not database.has_database(settings):
        found = status.gather(settings, client, None, published)
        status.show(found, as_json)
        if published.ledger is None:
            raise DatabaseUnavailable(published.trouble)
        raise typer.Exit(1 if check and found.needs else 0)
    try:
        with (
            database.open_database(settings) as ensure_running,
            database.connected_for_reading(ensure_running()) as connection,
        ):
            found = status.gather(settings, client, connection, published)
    except DatabaseUnavailable as error:
        status.show(status.gather(settings, client, None, published, str(error)), as_json)
        raise
    status.show(found, as_json)
    if found.backlog.error:
        raise Misconfigured(f"can't list the watch folder {found.backlog.folder}: {found.backlog.error}")
    raise typer.Exit(1 if check and found.needs else 0)


def run_sql(
    statement: Annotated[str, typer.Argument(help='For example "select * from vehicle_status".')],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    may_write: Annotated[
        bool, typer.Option("--write", help="Let the statement change the database, and hold all its rows.")
    ] = False,
) -> None:
    """Runs a query and prints its rows; it can't change the database.

    Of several statements in one text the rows of the last are printed. Tables cut long values.
    """
    from commands import sql
    from commands.sql_forms import Form

    form = Form.CSV if as_csv else Form.JSON if as_json else Form.TABLE
    connected = database.connected if may_write else database.connected_for_reading
    with (
        database.open_database(load_settings()) as ensure_running,
        connected(ensure_running()) as connection,
    ):
        sql.run(connection, statement, form, may_write=may_write)


def print_url(
    wait: Annotated[
        bool, typer.Option("--wait", help="Keep the embedded database running until Ctrl+C or SIGTERM.")
    ] = False,
) -> None:
    """Prints the database's URL, password included.

    For psql and other tools.
    The embedded database runs only while the daemon or another command does.
    """
    settings, stop = load_settings(), StopSignal()
    is_embedded = settings.outside_database is None
    with stop.on_signals(), database.open_database(settings, stop.event.is_set) as ensure_running:
        typer.echo(ensure_running().url)
        if is_embedded:
            typer.echo(_RUNS_UNTIL_ASKED if wait else _RUNS_NO_LONGER, err=True)
            if wait:
                stop.event.wait()


_RUNS_UNTIL_ASKED = "The embedded database runs until Ctrl+C, or for as long as the daemon does."
_RUNS_NO_LONGER = "The embedded database runs only while the daemon or another command does; --wait keeps it."


def show_dashboard(
    address: Annotated[
        str, typer.Option(help="HOST:PORT; beyond this machine only with DASHBOARD_TOKEN.")
    ] = "127.0.0.1:8090",
) -> None:
    """Serves web pages of the loading and of the fleet."""
    settings = load_settings()
    with packages_of("dashboard"):
        from commands import dashboard

        raise typer.Exit(dashboard.run(settings, address, typer.echo))


def write_report(
    since: Annotated[str | None, typer.Option(help=f"From {TIME}; by default a day before the end.")] = None,
    until: Annotated[str | None, typer.Option(help=f"Until {TIME}; by default now.")] = None,
    vehicle: Annotated[
        str | None, typer.Option(help="Only of this vehicle; by default of the fleet.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("report.html"),
) -> None:
    """Writes one page with plots of the fleet, to send to someone."""
    settings = load_settings()
    with packages_of("dashboard"):
        from commands import report

        raise typer.Exit(report.run(settings, since, until, vehicle, out, typer.echo))


def run_demo(
    rate: Annotated[float, typer.Option(min=0, help="Files a second; 0: all at once.")] = 20,
    count: Annotated[
        int | None, typer.Option(min=1, help="Number of files; by default until Ctrl+C.")
    ] = None,
    records: Annotated[int, typer.Option(min=1, help="Records in each file.")] = 12,
    vehicles: Annotated[int, typer.Option(min=1, help="Vehicles in the fleet.")] = 2000,
    seed: Annotated[int | None, typer.Option(help="The same number makes the same fleet again.")] = None,
) -> None:
    """Writes files of a simulated fleet to where files arrive."""
    from commands import demo

    stop = StopSignal()
    with stop.on_signals():
        demo.run(
            demo.target_of(load_settings()),
            rate=rate,
            count=count,
            records=records,
            vehicles=vehicles,
            seed=seed,
            stop=stop.event,
            report=lambda line: typer.echo(line, err=True),
        )


def check_files(
    files: Annotated[
        list[str],
        typer.Argument(help="Any files, or objects of a bucket; they need not be where files arrive."),
    ],
) -> None:
    """Shows what would happen to files, and changes nothing.

    Writes the rows in a transaction and rolls it back; only new partitions for their days may stay.
    Exits with 0 if all files would load without a reject.
    """
    from commands import check
    from commands.progress import shown

    settings = load_settings()
    with (
        database.open_database(settings) as ensure_running,
        database.connected(ensure_running()),
        shown(typer.echo) as (progress, report),
    ):
        raise typer.Exit(check.run(settings, ensure_running(), files, report, progress=progress))


def verify_all(
    since: Annotated[str | None, typer.Option(help=f"Only files that were finished since {TIME}.")] = None,
) -> None:
    """Compares ledger, tables and folders; prints the differences.

    Reads all rows; with --since those of the newest days, until each file has all of its rows. Exits with 0
    if there is no difference. Skips files that a running daemon has locked. A file that the daemon is just
    about to delete or quarantine may still be reported.
    """
    from commands import verify
    from commands.progress import shown

    utc, settings = read_time("--since", since) if since else None, load_settings()
    with (
        database.open_database(settings) as ensure_running,
        database.connected_for_reading(ensure_running()) as connection,
        shown(typer.echo) as (progress, report),
    ):
        raise typer.Exit(verify.run(settings, connection, report, since=utc, progress=progress))


def replay_failed(
    names: Annotated[
        list[str] | None, typer.Argument(help="Files in failed/; by default all of them.")
    ] = None,
    dismiss: Annotated[
        bool, typer.Option("--dismiss", help="Only note in the ledger that a person knows of these failures.")
    ] = False,
) -> None:
    """Loads files of the failed folder again.

    Deletes each loaded file and its note from the folder. Exits with 0 if all of them were loaded.
    """
    from commands import replay
    from commands.progress import shown

    settings = load_settings()
    with (
        database.open_database(settings) as ensure_running,
        database.connected_to_load(settings, ensure_running()),
    ):
        if dismiss:
            raise typer.Exit(replay.dismiss(settings, ensure_running(), names or [], typer.echo))
        with shown(typer.echo) as (progress, report):
            code = replay.files(settings, ensure_running(), names or [], report, progress=progress)
        raise typer.Exit(code)


def replay_rejected(
    file: Annotated[
        str | None, typer.Option(help="Only records of this file, as the ledger names it.")
    ] = None,
    reason: Annotated[Reason | None, typer.Option(help="Only records with this reason.")] = None,
    edited: Annotated[
        Path | None,
        typer.Option(help="A JSON array of objects with file_id, position and the fixed original."),
    ] = None,
) -> None:
    """Loads rejected records again: all open records, some of them, or edited ones from a file.

    To edit records, first write them into a file: sql "select * from open_rejects" --json. Loaded records
    are resolved, the others stay open. Exits with 0 if all of them were loaded.
    """
    from commands import replay
    from commands.progress import shown

    if edited and (file or reason):
        raise Misconfigured("--edited lists its records itself: leave out --file and --reason")
    settings = load_settings()
    with (
        database.open_database(settings) as ensure_running,
        database.connected_to_load(settings, ensure_running()),
        shown(typer.echo) as (progress, report),
    ):
        if edited:
            code = replay.edited_records(settings, ensure_running(), edited, report, progress=progress)
        else:
            code = replay.records(settings, ensure_running(), file, reason, report, progress=progress)
        raise typer.Exit(code)
