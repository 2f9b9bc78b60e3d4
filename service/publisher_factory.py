"""The composition of a publisher's worker process; apart from the daemon's, as that of the others is."""

from dataclasses import dataclass

from processing.loader import Loader
from service.heartbeat import Heartbeat
from service.loader_factory import FolderFactory
from sinks.kafka import KafkaSink
from sinks.kafka_producer import Publisher


@dataclass(frozen=True)
class PublisherFactory:
    """Makes the loader of a worker process, there."""

    source: FolderFactory
    publisher: Publisher
    max_bytes: int
    max_reject_ratio: float
    max_future_hours: float

    def __call__(self, heartbeat: Heartbeat) -> Loader:
        sink = KafkaSink(self.publisher, self.max_future_hours, beat=heartbeat.beat)
        source = self.source(heartbeat.beat)
        return Loader(source, sink, self.max_bytes, self.max_reject_ratio, report=heartbeat.report)
