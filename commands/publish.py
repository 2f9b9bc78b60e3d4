"""Publishes the files of the watch folder or bucket into topics of Kafka, until it is asked to stop."""

from collections import Counter
from contextlib import closing
from functools import partial

from commands.run import prepare_place, show_job, waiting_files
from config import Settings
from service.events import Publish, Resource, Started, Stopped
from service.kept_client import KeptClient
from service.publishing import WORKERS, Brokers, make_publisher, prepare_topics
from service.signals import StopSignal
from watcher.kind import ObserverKind


def run(settings: Settings, *, once: bool, accepts_new: bool, plain: bool) -> int:
    """Prepares the folders and the topics, publishes, and returns the exit code."""
    brokers = Brokers(settings)
    job = partial(_run, settings, brokers, once=once, accepts_new=accepts_new)
    return show_job(settings, job, brokers.ask, Resource.BROKER, once=once, plain=plain)


def _run(settings: Settings, brokers: Brokers, publish: Publish, *, once: bool, accepts_new: bool) -> int:
    stop = StopSignal()
    totals: Counter[str] = Counter()
    with stop.on_signals(), closing(KeptClient(settings.s3_endpoint_url)) as client:
        presence = prepare_place(settings)
        publisher = prepare_topics(
            settings, brokers, client, publish, stop, once=once, accepts_new=accepts_new
        )
        if publisher is not None:
            publish(_started(settings))
            daemon = make_publisher(
                settings, brokers, publisher, client, publish, stop, once=once, presence=presence
            )
            totals = daemon.run()
        if "waiting" not in totals:  # it was stopped before it could publish anything
            totals["waiting"] = waiting_files(settings)
        publish(Stopped(totals))
    return 1 if once and (totals["failed"] or totals["waiting"] or stop.event.is_set()) else 0


def _started(settings: Settings) -> Started:
    env_file = str(settings.env_file) if settings.env_file else None
    topics = f"{settings.kafka_topic_prefix}.* of Kafka at {settings.kafka_bootstrap_servers}"
    observer = settings.observer if settings.bucket is None else ObserverKind.OFF
    return Started(str(settings.watch_folder), observer, WORKERS, env_file, None, None, topics)
