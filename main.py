"""The command line: python main.py watches and loads; --help shows the other commands."""

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl+C during the imports ends it without a traceback

from typing import Annotated

import typer

from commands import everyday, operations, output, streams
from commands.errors import QueryFailed
from config import load_settings
from processing.errors import DatabaseUnavailable, Misconfigured, SourceUnavailable
from service.outage import TimedOut

app = typer.Typer(
    help="Loads the JSON files of a fleet from a folder into PostgreSQL, every row exactly once.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


_ONCE = (
    "Load the files that are there now, then exit: 0 if all were loaded, "
    "1 if any failed or still waits, or if the database does not answer for 30 s."
)

#: Commands that the system ends on Ctrl+C, wherever they wait for the database: libpq would let them notice
#: only when it answers. What is not committed rolls back; a file that was being removed is put back later.
_ENDED_BY_CTRL_C = ("status", "url", "check", "verify", "replay", "recall", "maintain", "report")


_NEW_DATABASE = "Load into this database, though the folder's files went into another one until now."


@app.callback(invoke_without_command=True)
def watch(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help=_ONCE)] = False,
    new_database: Annotated[bool, typer.Option("--new-database", help=_NEW_DATABASE)] = False,
    plain: Annotated[bool, typer.Option("--plain", help=streams.PLAIN)] = False,
) -> None:
    """Watches the folder and loads files until Ctrl+C or SIGTERM."""
    if context.invoked_subcommand in _ENDED_BY_CTRL_C and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if context.invoked_subcommand is None:
        from commands import run  # the main job; the others import what they do as this does, when typed

        raise typer.Exit(run.run(load_settings(), once=once, accepts_new=new_database, plain=plain))


everyday.add_to(app)
operations.add_to(app)
streams.add_to(app)


def main() -> int:
    """Runs a command and turns errors that a user can cause into one sentence and a code.

    Code 2 means that settings or rights have to be fixed.
    """
    output.for_people()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return 128 + signal.SIGINT
    except typer.Exit as ending:
        return ending.exit_code
    except typer.TyperException as error:
        return _complain(error.format_message(), 2)
    except Misconfigured as error:
        return _complain(str(error), 2)
    except (DatabaseUnavailable, SourceUnavailable, TimedOut, QueryFailed, OSError) as error:
        return _complain(str(error), 1)
    return code or 0


def _complain(what: str, code: int) -> int:
    typer.echo(f"error: {what}", err=True)
    return code


if __name__ == "__main__":
    code = main()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)
