"""Fixtures of publishing: a publisher, and a broker that a test may kill or cut off."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka import Broker, unique
from tests.kafka_proxy import Disturbed, disturbed_broker
from tests.publish.publisher import PublisherDaemon


@pytest.fixture(scope="module")
def disturbed() -> Iterator[Disturbed]:
    """A broker that a test may cut off."""
    with disturbed_broker() as disturbed:
        yield disturbed


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
