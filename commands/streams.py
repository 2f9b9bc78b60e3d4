"""Commands of streams, as they are typed: consume; it imports what it does when it is typed."""

from typing import Annotated

import typer

from commands.packages import packages_of
from config import load_settings


def add_to(app: typer.Typer) -> None:
    """Adds the commands to those of the program."""
    app.command("consume")(consume_topics)


_ACCEPT = "Note messages that are gone before they could be loaded, and go on behind them."


def consume_topics(
    accept_gap: Annotated[bool, typer.Option("--accept-gap", help=_ACCEPT)] = False,
) -> None:
    """Loads the messages of Kafka topics until Ctrl+C or SIGTERM; start it as often as you have partitions.

    Ends with 2 where messages are missing that were not loaded yet: a topic was deleted, or its log begins
    later than it was loaded.
    """
    settings = load_settings()
    with packages_of("kafka"):
        from commands import consume
    from commands.person import who

    raise typer.Exit(consume.run(settings, who() if accept_gap else None))
