"""Publishes the files of the watch folder into the topics of Apache Kafka, until it is asked to stop."""

from collections import Counter
from functools import partial

from commands.run import prepare_place, show_job, waiting_files
from config import Settings
from service.events import Publish, Started, Stopped
from service.publishing import WORKERS, TopicsDestination, make_publisher, prepare_topics
from service.signals import StopSignal


def run(settings: Settings, *, once: bool, accepts_new: bool, plain: bool) -> int:
    """Prepares the folders and the topics, publishes, and returns the exit code."""
    destination = TopicsDestination(settings)
    job = partial(_run, settings, destination, once=once, accepts_new=accepts_new)
    return show_job(settings, job, destination.ask, destination.resource, once=once, plain=plain)


def _run(
    settings: Settings, destination: TopicsDestination, publish: Publish, *, once: bool, accepts_new: bool
) -> int:
    stop = StopSignal()
    totals: Counter[str] = Counter()
    with stop.on_signals():
        presence = prepare_place(settings)
        if prepare_topics(settings, destination, publish, stop, once=once, accepts_new=accepts_new):
            publish(_started(settings))
            daemon = make_publisher(settings, destination, publish, stop, once=once, presence=presence)
            totals = daemon.run()
        if "waiting" not in totals:  # it was stopped before it could publish anything
            totals["waiting"] = waiting_files(settings)
        publish(Stopped(totals))
    return 1 if once and (totals["failed"] or totals["waiting"] or stop.event.is_set()) else 0


def _started(settings: Settings) -> Started:
    env_file = str(settings.env_file) if settings.env_file else None
    topics = f"{settings.kafka_topic_prefix}.* of Kafka at {settings.kafka_bootstrap_servers}"
    return Started(str(settings.folder), settings.observer, WORKERS, env_file, None, None, topics)
