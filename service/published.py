"""The files of a watch folder that were published, by the ledger in Kafka: no database is needed for it."""

from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from config import Settings
from processing.errors import DatabaseUnavailable, Misconfigured, SourceUnavailable
from processing.file_types import KINDS
from service.kept_client import KeptClient
from service.marker_store import marker_of_topics
from service.shelf import failed_shelf

if TYPE_CHECKING:
    from sinks.kafka_overview import LedgerTotals, TopicSize

#: Files of the ledger that are shown one by one.
_SHOWN = 5


class Published(Struct, frozen=True):
    """The topics, and the ledger of all publishers with this prefix; without them, trouble says why.

    unfixed: the files in the failed folder; None if that can't be listed.
    """

    place: str
    topics: "list[TopicSize]" = []
    ledger: "LedgerTotals | None" = None
    unfixed: list[str] | None = None
    trouble: str = ""


def find(settings: Settings, client: KeptClient) -> Published | None:
    """Returns what was published; None if the files of this place go into a database, or nowhere yet."""
    found = begin(settings, client)
    return _look(settings, client, found) if found else None


def begin(settings: Settings, client: KeptClient) -> Published | None:
    """Returns what is known without Kafka; None as above."""
    with suppress(Misconfigured, SourceUnavailable):  # whoever lists the place says what is wrong with it
        if marker := marker_of_topics(settings, client):
            return Published(marker.database)
    return None


def _look(settings: Settings, client: KeptClient, begun: Published) -> Published:
    """Asks Kafka."""
    found = replace(begun, unfixed=_unfixed(settings, client))
    try:  # with the packages of Kafka, which nobody else needs
        from sinks.kafka_overview import Overview
        from sinks.kafka_producer import without_ours
        from sinks.kafka_topics import Topics
        from sources.kafka_client import Cluster

        topics = Topics(settings.kafka_topic_prefix, KINDS.values())
        overview = Overview(Cluster(without_ours(settings.kafka)), topics)
        sizes = overview.sizes()
        (partitions,) = (size.partitions for size in sizes if size.topic == topics.ledger)
        return replace(found, topics=sizes, ledger=overview.ledger(partitions, _SHOWN))
    except (DatabaseUnavailable, Misconfigured, ModuleNotFoundError) as error:
        return replace(found, trouble=str(error))


def _unfixed(settings: Settings, client: KeptClient) -> list[str] | None:
    try:
        return list(failed_shelf(settings, client).names())
    except (Misconfigured, SourceUnavailable):
        return None
