"""The composition of a publisher: the daemon of a folder, with the topics of a broker as its destination."""

import queue

from config import Settings
from processing.errors import DatabaseUnavailable
from processing.file_types import KINDS
from service import installation, marker
from service.build import folder_discovery, folder_factory
from service.daemon import Daemon
from service.events import MarkerUnwritten, Publish, Resource
from service.inbox import Inbox
from service.marker import Marker
from service.outage import wait_for
from service.pool import Pool
from service.presence import Presence
from service.publisher_factory import PublisherFactory
from service.signals import StopSignal
from sinks.kafka_producer import Publisher
from sinks.kafka_topics import Topics
from sources.kafka_client import Cluster, Complaints

#: The longest wait for the brokers' answer to a question.
_ASK_SECONDS = 5.0

#: One worker: the files of a folder go one after the other, and nobody else has its transactional id.
WORKERS = 1

_REMEDY = (
    "correct KAFKA_BOOTSTRAP_SERVERS, KAFKA_TOPIC_PREFIX or WATCH_FOLDER, "
    "or start it with --new-topics to publish into these topics from now on"
)


class TopicsDestination:
    """The topics of a Kafka cluster, as the daemon sees them."""

    resource = Resource.BROKER

    def __init__(self, settings: Settings) -> None:
        """Connects to nothing; raises Misconfigured for properties that the client does not know."""
        cluster = Cluster(settings.kafka)
        self.publisher = Publisher(
            cluster, settings.kafka_topic_prefix, installation.find_or_make(settings.data_folder)
        )
        self._settings = settings
        self._complaints = Complaints(DatabaseUnavailable)
        self._admin = cluster.admin(self._complaints.take)
        self._topics = Topics(settings.kafka_topic_prefix, KINDS.values())

    def make_pool(self) -> Pool:
        settings = self._settings
        start = PublisherFactory(
            folder_factory(settings),
            self.publisher,
            settings.max_file_bytes,
            settings.max_reject_ratio,
            settings.max_future_hours,
        )
        return Pool(WORKERS, start, settings.quiet_seconds)

    def has_moved(self) -> bool:
        return False

    def ask(self) -> None:
        self.cluster_id()

    def cluster_id(self) -> str:
        """Returns the id of the cluster; raises DatabaseUnavailable or Misconfigured."""
        with self._complaints.translated(self._admin):
            return str(self._admin.list_topics(timeout=_ASK_SECONDS).cluster_id)

    def prepare(self) -> None:
        """Makes the topics that are missing."""
        self._topics.prepare(self._admin, self._complaints)


def prepare_topics(
    settings: Settings,
    destination: TopicsDestination,
    publish: Publish,
    stop: StopSignal,
    *,
    once: bool,
    accepts_new: bool,
) -> bool:
    """Makes the topics as soon as the brokers answer, and marks the folder; False if asked to stop before.

    Refuses topics that are not those of the folder's files, except with accepts_new.
    """

    def attempt() -> bool:
        _mark(settings, destination.cluster_id(), publish, accepts_new=accepts_new)
        destination.prepare()
        return True

    return bool(wait_for(attempt, {DatabaseUnavailable: Resource.BROKER}, publish, stop, once=once))


def _mark(settings: Settings, cluster_id: str, publish: Publish, *, accepts_new: bool) -> None:
    """Writes into the folder which topics its files go into; raises Misconfigured if it was into others."""
    prefix, servers = settings.kafka_topic_prefix, settings.kafka_bootstrap_servers
    wanted = Marker(f"kafka:{cluster_id}:{prefix}", f"the topics {prefix}.* of Kafka at {servers}")
    store = marker.FolderStore(settings.folder)
    found = store.read()
    if found is not None and found.ledger != wanted.ledger and not accepts_new:
        raise marker.refusal(str(settings.folder), found, wanted.database, _REMEDY)
    try:
        if found != wanted:
            store.write(wanted)
    except OSError as error:  # a full disk must not stop what empties it
        publish(MarkerUnwritten(str(settings.folder), error.strerror or str(error)))


def make_publisher(
    settings: Settings,
    destination: TopicsDestination,
    publish: Publish,
    stop: StopSignal,
    *,
    once: bool,
    presence: Presence | None = None,
) -> Daemon:
    """Returns a daemon with all that it needs."""
    inbox: Inbox = queue.SimpleQueue()
    discovery = folder_discovery(settings, publish, inbox, presence)
    return Daemon(settings, destination, discovery, inbox, publish, stop, once=once)
