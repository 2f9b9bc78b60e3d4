"""The composition of a publisher: the daemon of a folder or bucket, with topics as its destination."""

import queue
import secrets
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from config import Settings
from processing.errors import DatabaseUnavailable, Misconfigured, SourceUnavailable
from processing.file_types import KINDS
from service import marker
from service.bucket_claims import Unshared
from service.build import bucket_discovery, folder_discovery, source_factory
from service.daemon import Daemon
from service.discovery import Discovery
from service.events import MarkerUnwritten, Publish, Resource
from service.inbox import Inbox
from service.kept_client import KeptClient
from service.marker import Marker
from service.marker_store import store_of
from service.outage import wait_for
from service.pool import Pool
from service.presence import Presence
from service.publisher_factory import PublisherFactory
from service.signals import StopSignal
from sinks.kafka_producer import Publisher, without_ours
from sinks.kafka_topics import Topics
from sources.kafka_client import Cluster

#: The longest wait for the brokers' answer to a question.
_ASK_SECONDS = 5.0

#: One worker: the files of a folder go one after the other, and nobody else has its transactional id.
WORKERS = 1

_REMEDY = (
    "correct KAFKA_BOOTSTRAP_SERVERS, KAFKA_TOPIC_PREFIX or WATCH_FOLDER, "
    "or start it with --new-topics to publish into these topics from now on"
)

#: Bytes of the random part of a publisher's name.
_NAME_BYTES = 8


class Brokers:
    """The brokers of the settings, and the topics in which files are published there."""

    def __init__(self, settings: Settings) -> None:
        """Connects to nothing; raises Misconfigured for properties that the client does not know."""
        self.cluster = Cluster(without_ours(settings.kafka))
        self._complaints = self.cluster.complaints(DatabaseUnavailable)
        self._admin = self.cluster.admin(self._complaints.take)
        self._topics = Topics(settings.kafka_topic_prefix, KINDS.values())

    def ask(self) -> None:
        """Returns if they answer; raises DatabaseUnavailable or Misconfigured."""
        self.cluster_id()

    def cluster_id(self) -> str:
        """Returns the id of the cluster; raises DatabaseUnavailable or Misconfigured."""
        with self._complaints.translated(self._admin):
            return str(self._admin.list_topics(timeout=_ASK_SECONDS).cluster_id)

    def make_topics(self) -> None:
        """Makes the topics that are missing."""
        self._topics.prepare(self._admin, self._complaints)


class TopicsDestination:
    """The topics of a Kafka cluster, as the daemon sees them."""

    resource = Resource.BROKER

    def __init__(self, brokers: Brokers, make_pool: Callable[[], Pool]) -> None:
        self._brokers = brokers
        self._make_pool = make_pool

    def make_pool(self) -> Pool:
        return self._make_pool()

    def has_moved(self) -> bool:
        return False

    def ask(self) -> None:
        self._brokers.ask()


def prepare_topics(
    settings: Settings,
    brokers: Brokers,
    client: KeptClient,
    publish: Publish,
    stop: StopSignal,
    *,
    once: bool,
    accepts_new: bool,
) -> Publisher | None:
    """Makes the topics as soon as the brokers answer, and marks the folder or bucket; None if asked to stop.

    Returns who publishes its files: whatever machine it is started on, there is one of that name. Refuses
    topics that are not those of the folder's files, except with accepts_new.
    """

    def attempt() -> Publisher:
        name = _mark(settings, brokers.cluster_id(), client, publish, accepts_new=accepts_new)
        brokers.make_topics()
        return Publisher(brokers.cluster, settings.kafka_topic_prefix, name)

    away = {DatabaseUnavailable: Resource.BROKER, SourceUnavailable: Resource.BUCKET}
    return wait_for(attempt, away, publish, stop, once=once)


def _mark(
    settings: Settings, cluster_id: str, client: KeptClient, publish: Publish, *, accepts_new: bool
) -> str:
    """Writes beside the files which topics they go into; returns the name of their publisher.

    Raises Misconfigured if they went into others, or if the name can't be kept there.
    """
    prefix, servers = settings.kafka_topic_prefix, settings.kafka_bootstrap_servers
    database = f"the topics {prefix}.* of Kafka at {servers}"
    wanted = Marker(f"{marker.OF_TOPICS}{cluster_id}:{prefix}", database, secrets.token_hex(_NAME_BYTES))
    place, store = str(settings.watch_folder), store_of(settings, client)
    found = store.read()
    try:
        if found is None:
            store.add(wanted)
            found = store.read() or wanted  # that of another publisher, if it was as quick
        if found.ledger != wanted.ledger and not accepts_new:
            raise marker.refusal(place, found, wanted.database, _REMEDY)
        wanted = replace(wanted, publisher=found.publisher or wanted.publisher)
        if found != wanted:
            store.write(wanted)
    except OSError as error:
        reason = error.strerror or str(error)
        if found is None or not found.publisher:
            where = f"{place.rstrip('/')}/{marker.NAME}"
            raise Misconfigured(f"can't keep the name of this publisher in {where}: {reason}") from None
        publish(MarkerUnwritten(place, reason))  # a full disk must not stop what empties it
    return wanted.publisher


def make_publisher(
    settings: Settings,
    brokers: Brokers,
    publisher: Publisher,
    client: KeptClient,
    publish: Publish,
    stop: StopSignal,
    *,
    once: bool,
    presence: Presence | None = None,
) -> Daemon:
    """Returns a daemon with all that it needs."""
    inbox: Inbox = queue.SimpleQueue()
    if settings.bucket is None:
        discovery: Discovery = folder_discovery(settings, publish, inbox, presence)
    else:
        discovery = bucket_discovery(settings, settings.bucket, client, Unshared(), publish, inbox)
    destination = TopicsDestination(brokers, partial(_make_pool, settings, publisher))
    return Daemon(settings, destination, discovery, inbox, publish, stop, once=once)


def _make_pool(settings: Settings, publisher: Publisher) -> Pool:
    start = PublisherFactory(
        source_factory(settings),
        publisher,
        settings.max_file_bytes,
        settings.max_reject_ratio,
        settings.max_future_hours,
        settings.bucket is not None,
    )
    return Pool(WORKERS, start, settings.quiet_seconds if settings.bucket is None else 0.0)
