"""Fixtures of publishing: a publisher, and a broker that a test may kill or cut off."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.kafka import Broker, find_jars, unique
from tests.kafka_proxy import KafkaProxy
from tests.publish.publisher import PublisherDaemon


class Disturbed(NamedTuple):
    """A broker behind a proxy."""

    broker: Broker
    proxy: KafkaProxy


@pytest.fixture(scope="module")
def disturbed() -> Iterator[Disturbed]:
    """A broker whose clients come by a proxy; it soon aborts transactions that have timed out."""
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder), find_jars())
        broker.create()
        proxy = KafkaProxy(broker.port)
        with open(Path(folder) / "server.properties", "a") as settings:
            settings.write(f"advertised.listeners=PLAINTEXT://127.0.0.1:{proxy.port}\n")
            settings.write("transaction.abort.timed.out.transaction.cleanup.interval.ms=200\n")
        broker.start()
        try:
            yield Disturbed(broker, proxy)
        finally:
            proxy.close()
            broker.stop()


@pytest.fixture
def publisher(tmp_path: Path, broker: Broker) -> Iterator[PublisherDaemon]:
    """A publisher that is not started yet."""
    yield from _stopped(PublisherDaemon(tmp_path, broker, unique("publish")))


@pytest.fixture
def frail(tmp_path: Path, disturbed: Disturbed) -> Iterator[PublisherDaemon]:
    """The same, with a broker behind a proxy."""
    disturbed.proxy.come_back()
    yield from _stopped(PublisherDaemon(tmp_path, disturbed.broker, unique("frail")))


def _stopped(publisher: PublisherDaemon) -> Iterator[PublisherDaemon]:
    yield publisher
    if publisher.process is not None:
        publisher.stop()
