"""The consumer in this process, between a real broker and a sink in memory."""

from collections.abc import Sequence
from threading import Event, Thread

import pytest

from processing.file_types import KINDS
from processing.stream import Position
from service.consumer import Consumer
from service.placement import Placement
from service.signals import StopSignal
from sinks.memory import MemorySink
from sinks.memory_stream import MemoryStream
from sources.kafka_client import Cluster
from sources.topic import Subscription
from sources.topic_logs import TopicLogs
from tests.consume.consuming import STATUS, Fleet, reports
from tests.support import until

#: The first test waits for the broker, too.
pytestmark = pytest.mark.timeout(300)


class SlowStream(MemoryStream):
    """A sink that says where to go on only when it may."""

    def __init__(self) -> None:
        super().__init__(MemorySink())
        self.is_asked, self.may_answer = Event(), Event()

    def positions(self, topics: Sequence[str]) -> list[Position]:
        self.is_asked.set()
        assert self.may_answer.wait(60)
        return super().positions(topics)


def test_it_loads_though_the_broker_was_away_while_the_database_was_asked(fleet: Fleet) -> None:
    """The sink that has answered is the one that loads."""
    fleet.make()
    fleet.send(STATUS, reports(0, 1))
    kinds = {fleet.topic(kind.key): kind for kind in KINDS.values()}
    cluster, names = Cluster({"bootstrap.servers": fleet.broker.servers}), [*kinds]
    stop, sink = StopSignal(), SlowStream()
    subscription, logs = Subscription(cluster, fleet.group, names), TopicLogs(cluster)
    placement = Placement(logs, names, lambda event: None, None)
    consumer = Consumer(subscription, placement, lambda: sink, kinds, 2**30, lambda event: None, stop)
    thread = Thread(target=consumer.run)
    thread.start()
    try:
        assert sink.is_asked.wait(30)
        subscription.trouble = "1/1 brokers are down"  # as the client would say
        until(lambda: not subscription.trouble, what="it has heard of it")
        sink.may_answer.set()
        until(lambda: sum(sink.next_offsets.values()) == 2, 30, "both messages are loaded")
    finally:
        sink.may_answer.set()
        stop.event.set()
        thread.join(30)
