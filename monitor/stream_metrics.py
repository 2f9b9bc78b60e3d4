"""Counts the events of the consumer of topics as Prometheus's metrics; docs/metrics.md lists them."""

from collections import Counter
from collections.abc import Sequence
from threading import Lock

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from processing.file_types import KINDS, Kinds
from processing.records import Reason
from service import events, stream_events
from service.events import Event, Resource
from service.stream_events import PartitionLag

_OUTCOMES = ("inserted", "duplicate", "rejected")

#: Name and meaning of each counter without a label.
_COUNTERS = {
    "mobileye_messages": "Messages whose transaction is committed",
    "mobileye_message_bytes": "Bytes of the values of these messages",
    "mobileye_batches": "Transactions with messages that are committed",
    "mobileye_batch_seconds": "Seconds of these transactions; the rate is the share of time that they take",
    "mobileye_batches_fenced": "Transactions that the database refused, since another consumer was faster",
    "mobileye_rebalances": "Times at which partitions were taken over or given up",
    "mobileye_pauses": "Times at which partitions were paused, since the database took long",
    "mobileye_gaps": "Gaps that a person has accepted",
}

_COUNTED: dict[type[Event], str] = {
    stream_events.PositionsFenced: "mobileye_batches_fenced",
    stream_events.PartitionsRead: "mobileye_rebalances",
    stream_events.PartitionsGivenUp: "mobileye_rebalances",
    stream_events.ReadingPaused: "mobileye_pauses",
    stream_events.GapAccepted: "mobileye_gaps",
}

#: Name and meaning of each gauge of a partition, with the name of its field.
_OF_PARTITION = {
    "mobileye_position": ("next_offset", "Offset of the next message that is to be loaded"),
    "mobileye_lag_messages": ("lag", "Committed messages that are still to be loaded"),
    "mobileye_blocked_messages": ("blocked", "Messages behind a transaction that is open, all others loaded"),
    "mobileye_blocked_seconds": ("blocked_seconds", "For how long the same transaction has held them up"),
}


class StreamMetrics(Collector):
    """The counts since the start: one event changes all that it concerns before anybody can read it."""

    def __init__(self, kinds: Kinds = KINDS) -> None:
        self._lock = Lock()
        self._kinds = kinds
        self._counts: dict[str, float] = dict.fromkeys(_COUNTERS, 0.0)
        self._read: Counter[str] = Counter()
        self._records: Counter[tuple[str, str]] = Counter()
        self._rejected: Counter[tuple[str, Reason]] = Counter()
        self._partitions: Sequence[PartitionLag] = ()
        self._is_paused = False
        self._outages: set[Resource] = set()

    def note(self, event: Event) -> None:
        """Takes an event, of any thread."""
        with self._lock:
            if name := _COUNTED.get(type(event)):
                self._counts[name] += 1
            self._note(event)

    def _note(self, event: Event) -> None:
        match event:
            case stream_events.MessagesLoaded():
                self._add(event)
            case stream_events.PartitionsGivenUp(names):
                self._partitions = [one for one in self._partitions if str(one) not in names]
            case stream_events.LagMeasured(partitions):
                self._partitions = partitions
            case stream_events.ReadingPaused():
                self._is_paused = True
            case stream_events.ReadingResumed():
                self._is_paused = False
            case events.OutageBegan(resource):
                self._outages.add(resource)
            case events.OutageEnded(resource):
                self._outages.discard(resource)

    def _add(self, event: stream_events.MessagesLoaded) -> None:
        self._counts["mobileye_messages"] += event.messages
        self._counts["mobileye_message_bytes"] += event.bytes
        self._counts["mobileye_batches"] += 1
        self._counts["mobileye_batch_seconds"] += event.seconds
        for entry in event.entries:
            self._read[entry.kind] += entry.counts.read
            for outcome in _OUTCOMES:
                self._records[entry.kind, outcome] += getattr(entry.counts, outcome)
            for reason in Reason:
                self._rejected[entry.kind, reason] += entry.counts.rejected_for(reason)

    def collect(self) -> list[Metric]:
        """Returns all metrics, as of one instant."""
        with self._lock:
            found: list[Metric] = [
                CounterMetricFamily(name, meaning, self._counts[name]) for name, meaning in _COUNTERS.items()
            ]
            return [*found, *self._of_records(), *self._of_partitions(), *self._of_state()]

    def _of_records(self) -> list[Metric]:
        read = CounterMetricFamily("mobileye_records_read", "Records of loaded messages", labels=["kind"])
        records = CounterMetricFamily(
            "mobileye_records", "Records by what became of them", labels=["kind", "outcome"]
        )
        rejected = CounterMetricFamily(
            "mobileye_records_rejected", "Rejected records, by reason", labels=["kind", "reason"]
        )
        for kind in self._kinds:
            read.add_metric([kind], self._read[kind])
            for outcome in _OUTCOMES:
                records.add_metric([kind, outcome], self._records[kind, outcome])
            for reason in Reason:
                rejected.add_metric([kind, reason.value], self._rejected[kind, reason])
        return [read, records, rejected]

    def _of_partitions(self) -> list[Metric]:
        number = len(self._partitions)
        found: list[Metric] = [
            GaugeMetricFamily("mobileye_partitions", "Partitions that this consumer reads", number)
        ]
        for name, (field, meaning) in _OF_PARTITION.items():
            gauge = GaugeMetricFamily(name, meaning, labels=["topic", "partition"])
            for one in self._partitions:
                gauge.add_metric([one.topic, str(one.partition)], getattr(one, field))
            found.append(gauge)
        return found

    def _of_state(self) -> list[Metric]:
        outage = GaugeMetricFamily("mobileye_outage", "1 during an outage", labels=["resource"])
        for resource in (Resource.DATABASE, Resource.BROKER):
            outage.add_metric([resource.name.lower()], resource in self._outages)
        paused = GaugeMetricFamily("mobileye_paused", "1 while partitions are paused", self._is_paused)
        return [outage, paused]
