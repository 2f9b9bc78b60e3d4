"""Loads the messages of Kafka topics until it is asked to stop, beside other consumers of the group."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING

import environment
from commands.run import ENDINGS, end, shown_events, to_both
from config import LogLevel, Settings
from db.connection import Database
from db.embedded.server import StartCancelled
from db.stream import PostgresStream
from monitor.stream_log import StreamLog
from processing.file_types import KINDS
from processing.records import Kind
from service.consumer import Consumer
from service.database import check_reachable, open_database, prepare_stream_database
from service.events import Event, Publish
from service.interpreter import suit_loads
from service.lag_watch import LagWatch
from service.placement import Placement
from service.signals import StopSignal
from service.stream_events import ConsumerStarted, ConsumerStopped, MessagesLoaded
from sources.kafka_client import Cluster
from sources.topic import Subscription
from sources.topic_logs import TopicLogs

if TYPE_CHECKING:
    from monitor.terminal import Show


def run(settings: Settings, accepted_by: str | None, *, plain: bool) -> int:
    """Loads, and returns the exit code; accepted_by is who accepts gaps, if anybody does."""
    with shown_events(settings, plain=plain, make_show=_show_messages, make_log=StreamLog) as shown:
        try:
            with _exposed(settings, _announced(shown.write)) as publish:
                _run(settings, accepted_by, publish)
        except ENDINGS as error:
            return end(settings, shown, error)
    return 0


def _show_messages(level: LogLevel) -> "Show":
    from monitor.stream_show import StreamShow

    return StreamShow(level)


def _announced(publish: Publish) -> Publish:
    """Returns a function that publishes to systemd, too, if that wants to hear."""
    address = environment.notify_socket()
    if not address:
        return publish
    from monitor.stream_systemd import StreamServiceManager

    return to_both(publish, StreamServiceManager(address).note)


def _exposed(settings: Settings, publish: Publish) -> AbstractContextManager[Publish]:
    """Serves metrics and health, if an address for them is set."""
    if settings.metrics_address is None:
        return nullcontext(publish)
    from monitor.exposure import expose_consumer

    return expose_consumer(settings.metrics_address, publish, lambda: check_reachable(settings))


def topics_of(settings: Settings) -> Mapping[str, Kind]:
    """Returns the kind of single records in each topic; a document says itself what it holds."""
    return {f"{settings.kafka_topic_prefix}.{kind.key}": kind for kind in KINDS.values()}


def _run(settings: Settings, accepted_by: str | None, write: Publish) -> None:
    cluster, names = Cluster(settings.kafka), sorted(topics_of(settings))
    # Before all else: a person may have to set something.
    subscription, logs = Subscription(cluster, settings.kafka_group, names), TopicLogs(cluster)
    stop, totals = StopSignal(), _Totals(write)
    publish = totals.publish
    opened = open_database(settings, stop.event.is_set, publish, stop.ask, may_create=True)
    with stop.on_signals(), suppress(StartCancelled), opened as ensure_running:
        if prepare_stream_database(ensure_running, publish, stop):
            publish(_started(settings, names))
            consumer = Consumer(
                subscription,
                Placement(logs, names, publish, accepted_by),
                partial(_open_sink, settings, ensure_running),
                topics_of(settings),
                settings.max_file_bytes,
                publish,
                stop,
            )
            with LagWatch(logs, lambda: consumer.positions, consumer.read_anew, publish):
                suit_loads()
                consumer.run()
    publish(totals.stopped)


def _open_sink(settings: Settings, ensure_running: Callable[[], Database]) -> PostgresStream:
    return PostgresStream(ensure_running(), max_future_hours=settings.max_future_hours)


def _started(settings: Settings, names: list[str]) -> ConsumerStarted:
    outside = settings.outside_database
    return ConsumerStarted(
        settings.kafka_bootstrap_servers or "",
        settings.kafka_group,
        names,
        str(settings.env_file) if settings.env_file else None,
        str(settings.data_folder) if outside is None else None,
        outside,
    )


class _Totals:
    """Counts what is loaded, and passes all events on."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._counts: Counter[str] = Counter()

    def publish(self, event: Event) -> None:
        if isinstance(event, MessagesLoaded):
            self._counts["messages"] += event.messages
            for entry in event.entries:
                self._counts["rows"] += entry.counts.inserted
                self._counts["rejected"] += entry.counts.rejected
        self._publish(event)

    @property
    def stopped(self) -> ConsumerStopped:
        counts = self._counts
        return ConsumerStopped(counts["messages"], counts["rows"], counts["rejected"])
