"""The composition of a publisher's worker process; apart from the daemon's, as that of the others is."""

from dataclasses import dataclass

from processing.each import Each, in_turn
from processing.loader import Loader
from service.heartbeat import Heartbeat
from service.loader_factory import SourceFactory
from sinks.kafka import KafkaSink
from sinks.kafka_producer import Publisher
from sources.at_once import AtOnce


@dataclass(frozen=True)
class PublisherFactory:
    """Makes the loader of a worker process, there."""

    source: SourceFactory
    publisher: Publisher
    max_bytes: int
    max_reject_ratio: float
    max_future_hours: float
    is_remote: bool

    def __call__(self, heartbeat: Heartbeat) -> Loader:
        sink = KafkaSink(self.publisher, self.max_future_hours, beat=heartbeat.beat)
        source = self.source(heartbeat.beat)
        each: Each = AtOnce() if self.is_remote else in_turn  # requests are waited for, system calls are not
        return Loader(source, sink, self.max_bytes, self.max_reject_ratio, report=heartbeat.report, each=each)
