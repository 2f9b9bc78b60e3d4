"""Counts the events of the consumer of topics as Prometheus's metrics; docs/kafka.md lists them."""

from collections import Counter
from threading import Lock

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service import events, stream_events
from service.events import Event, Resource

_OUTCOMES = ("inserted", "duplicate", "rejected")

#: Name and meaning of each counter without a label.
_COUNTERS = {
    "mobileye_messages": "Messages whose transaction is committed",
    "mobileye_message_bytes": "Bytes of the values of these messages",
    "mobileye_batches": "Transactions with messages that are committed",
    "mobileye_batches_fenced": "Transactions that the database refused, since another consumer was faster",
    "mobileye_rebalances": "Times at which partitions were taken over or given up",
}


class StreamMetrics(Collector):
    """The counts since the start: one event changes all that it concerns before anybody can read it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[str] = Counter()
        self._read: Counter[str] = Counter()
        self._records: Counter[tuple[str, str]] = Counter()
        self._lags: dict[str, int] = {}
        self._outages: set[Resource] = set()

    def note(self, event: Event) -> None:
        """Takes an event, of any thread."""
        with self._lock:
            self._note(event)

    def _note(self, event: Event) -> None:
        match event:
            case stream_events.MessagesLoaded():
                self._counts["mobileye_messages"] += event.messages
                self._counts["mobileye_message_bytes"] += event.bytes
                self._counts["mobileye_batches"] += 1
                for entry in event.entries:
                    self._read[entry.kind] += entry.counts.read
                    for outcome in _OUTCOMES:
                        self._records[entry.kind, outcome] += getattr(entry.counts, outcome)
            case stream_events.PositionsFenced():
                self._counts["mobileye_batches_fenced"] += 1
            case stream_events.PartitionsRead() | stream_events.PartitionsGivenUp():
                self._counts["mobileye_rebalances"] += 1
                if isinstance(event, stream_events.PartitionsGivenUp):
                    self._lags = {at: lag for at, lag in self._lags.items() if at not in event.partitions}
            case stream_events.LagMeasured(lags):
                self._lags = dict(lags)
            case events.OutageBegan(resource):
                self._outages.add(resource)
            case events.OutageEnded(resource):
                self._outages.discard(resource)

    def collect(self) -> list[Metric]:
        """Returns all metrics, as of one instant."""
        with self._lock:
            found: list[Metric] = [
                CounterMetricFamily(name, meaning, self._counts[name]) for name, meaning in _COUNTERS.items()
            ]
            return [*found, *self._of_records(), *self._of_state()]

    def _of_records(self) -> list[Metric]:
        read = CounterMetricFamily("mobileye_records_read", "Records of loaded messages", labels=["kind"])
        records = CounterMetricFamily(
            "mobileye_records", "Records by what became of them", labels=["kind", "outcome"]
        )
        for kind, count in self._read.items():
            read.add_metric([kind], count)
        for (kind, outcome), count in self._records.items():
            records.add_metric([kind, outcome], count)
        return [read, records]

    def _of_state(self) -> list[Metric]:
        lag = GaugeMetricFamily(
            "mobileye_lag_messages", "Committed messages that are still to be loaded", labels=["partition"]
        )
        for partition, count in self._lags.items():
            lag.add_metric([partition], count)
        outage = GaugeMetricFamily("mobileye_outage", "1 during an outage", labels=["resource"])
        for resource in (Resource.DATABASE, Resource.BROKER):
            outage.add_metric([resource.name.lower()], resource in self._outages)
        return [lag, outage]
