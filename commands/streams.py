"""Commands of streams, as they are typed: consume, publish; each imports what it does when it is typed."""

from typing import Annotated

import typer

from commands.packages import packages_of
from config import load_settings


def add_to(app: typer.Typer) -> None:
    """Adds the commands to those of the program."""
    app.command("consume")(consume_topics)
    app.command("publish")(publish_folder)


#: Of the main job, too.
PLAIN = "Write only log lines, on a terminal, too; so does a set LOG_FORMAT."

_ACCEPT = "Note messages that are gone before they could be loaded, and go on behind them."


def consume_topics(
    accept_gap: Annotated[bool, typer.Option("--accept-gap", help=_ACCEPT)] = False,
    plain: Annotated[bool, typer.Option("--plain", help=PLAIN)] = False,
) -> None:
    """Loads the messages of Kafka topics until Ctrl+C or SIGTERM; start it as often as you have partitions.

    Ends with 2 where messages are missing that were not loaded yet: a topic was deleted, or its log begins
    later than it was loaded.
    """
    settings = load_settings()
    with packages_of("kafka"):
        from commands import consume
    from commands.person import who

    raise typer.Exit(consume.run(settings, who() if accept_gap else None, plain=plain))


_PUBLISH_ONCE = (
    "Publish the files that are there now, then exit: 0 if all were published, "
    "1 if any failed or still waits, or if the broker does not answer for 30 s."
)
_NEW_TOPICS = "Publish into these topics, though the files went elsewhere until now."


def publish_folder(
    once: Annotated[bool, typer.Option("--once", help=_PUBLISH_ONCE)] = False,
    new_topics: Annotated[bool, typer.Option("--new-topics", help=_NEW_TOPICS)] = False,
    plain: Annotated[bool, typer.Option("--plain", help=PLAIN)] = False,
) -> None:
    """Publishes the files of the watch folder or bucket into Kafka topics until Ctrl+C or SIGTERM, each once.

    Readers of committed messages see a file whole or not at all. Needs no database.
    """
    settings = load_settings()
    with packages_of("kafka"):
        from commands import publish

    raise typer.Exit(publish.run(settings, once=once, accepts_new=new_topics, plain=plain))
