"""Loads or publishes in one process, as one worker would, so that faults can be injected anywhere.

Like the daemon, it loads each large file by itself and the small ones together.
"""

import os
import signal
from collections.abc import Callable
from contextlib import closing
from uuid import uuid4

import db.chunk
import processing.loader
import service.consumer
import sinks.kafka_producer
import sources.bucket_object
import sources.local_file
import sources.s3_client
import watcher.scan
from db.connection import Database
from db.stream import PostgresStream, find_positions
from processing.batch import FileTask, Outcome
from processing.errors import DatabaseUnavailable, NotReady
from processing.file_types import KINDS
from processing.loader import Loader
from service.bucket_discovery import Place
from service.consumer import Consumer
from service.events import Event
from service.loader_factory import BucketFactory, FolderFactory, LoaderFactory
from service.placement import Placement
from service.signals import StopSignal
from service.stream_events import MessagesLoaded, PartitionsRead
from sinks.kafka import KafkaSink
from sinks.kafka_producer import Publisher
from sources.claims import recover_claims
from sources.kafka_client import Cluster
from sources.policy import BucketEnds, BucketPlace, OnLoaded
from sources.topic import Subscription
from sources.topic_logs import TopicLogs

_MAX_SHARED_BYTES = 200_000

#: Tries of a batch, one right after the other; the daemon would pause between them.
_TRIES = 2

#: Messages of a transaction: with more, all would be loaded at once.
_MOST_MESSAGES = 25

Report = Callable[[Outcome | Exception], None]


def get_ready() -> None:
    """Makes files of a few thousand rows count as large, with several chunks."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # as workers do
    db.chunk.CHUNK_ROWS = 1_000
    for module in (sources.local_file, sources.bucket_object, processing.loader):
        module.MAX_SHARED_BYTES = _MAX_SHARED_BYTES  # type: ignore[attr-defined]


def main(folder: str, url: str, report: Report) -> int:
    """Returns 0 if every file has its outcome; reports each outcome and each error."""
    failed = os.path.join(folder, "failed")
    loader = LoaderFactory(FolderFactory(folder, failed, "", OnLoaded.DELETE), 2**40, Database(url))()
    try:
        batches = _batches(folder)
    except OSError as error:  # the daemon would scan again later
        report(NotReady(error.strerror))
        return 1
    return _load_all(loader, batches, report)


def bucket(place: BucketPlace, endpoint: str, url: str, report: Report) -> int:
    """Does the same with all objects of a place in a bucket."""
    ends = BucketEnds(f"{place.prefix}failed/", "", OnLoaded.DELETE)
    loader = LoaderFactory(BucketFactory(place, ends, endpoint), 2**40, Database(url), is_remote=True)()
    listed = sources.s3_client.make_client(endpoint).list_objects_v2(Bucket=place.bucket, Prefix=place.prefix)
    wanted = Place.of(place, ends).wanted
    found = {entry["Key"]: entry["Size"] for entry in listed.get("Contents", []) if wanted(entry["Key"])}
    return _load_all(
        loader, _grouped({key[len(place.prefix) :]: size for key, size in found.items()}), report
    )


def publish(folder: str, servers: str, prefix: str, report: Report) -> int:
    """Publishes the files of a folder; a large one in several parts."""
    sinks.kafka_producer._LEAST_BYTES = _MAX_SHARED_BYTES // 2
    sinks.kafka_producer._BYTES_A_SECOND = 1
    place = FolderFactory(folder, os.path.join(folder, "failed"), "", OnLoaded.DELETE)
    publisher = Publisher(Cluster({"bootstrap.servers": servers}), prefix, "here")
    loader = Loader(place(lambda: None), KafkaSink(publisher), 2**40)
    return _load_all(loader, _batches(folder), report)


def consume(servers: str, prefix: str, url: str, last: int, report: Report) -> int:
    """Loads the messages of topics, until the positions add up to the last offsets."""
    service.consumer.MOST_MESSAGES = _MOST_MESSAGES  # type: ignore[attr-defined]
    cluster = Cluster({"bootstrap.servers": servers})
    kinds = {f"{prefix}.{kind.key}": kind for kind in KINDS.values()}
    names, logs, stop, database = sorted(kinds), TopicLogs(cluster), StopSignal(), Database(url)

    def publish(event: Event) -> None:
        if isinstance(event, PartitionsRead | MessagesLoaded):
            with closing(database.connect()) as connection, connection.cursor() as cursor:
                if sum(at.next_offset for at in find_positions(cursor, names)) >= last:
                    stop.event.set()

    # A group of its own: it does not have to wait until one that was killed is forgotten.
    subscription, placement = Subscription(cluster, uuid4().hex, names), Placement(logs, names, publish, None)
    consumer = Consumer(
        subscription, placement, lambda: PostgresStream(database), kinds, 2**40, publish, stop
    )
    try:
        consumer.run()
    except Exception as error:  # noqa: BLE001
        report(error)
        return 1
    return 0


def _load_all(loader: Loader, batches: list[list[str]], report: Report) -> int:
    try:
        return max([_load(loader, batch, report) for batch in batches], default=0)
    except Exception as error:  # noqa: BLE001
        report(error)
        return 1


def _batches(folder: str) -> list[list[str]]:
    recover_claims(folder)
    return _grouped(
        {name: os.lstat(os.path.join(folder, name)).st_size for name in watcher.scan.waiting(folder)}
    )


def _grouped(sizes: dict[str, int]) -> list[list[str]]:
    large = [[name] for name, size in sizes.items() if size > _MAX_SHARED_BYTES]
    small = [name for name, size in sizes.items() if size <= _MAX_SHARED_BYTES]
    return [*large, *([small] if small else [])]


def _load(loader: Loader, names: list[str], report: Report) -> int:
    """Loads a batch, and retries it as the daemon would: the process must be able to go on after an error."""
    for _ in range(_TRIES):
        try:
            outcomes = loader.load([FileTask(name) for name in names])
        except DatabaseUnavailable as error:
            report(error)
            continue
        for outcome in outcomes:
            report(outcome)
        names = [outcome.name for outcome in outcomes if outcome.state in ("waiting", "retry_alone")]
        if not names:
            return 0
    return 1
