"""Metrics of a consumer of topics: what each event changes; docs/kafka.md lists them."""

import pytest

from monitor.stream_metrics import StreamMetrics
from processing.sink import Counts, FirstReject
from processing.stream_loader import LoadedEntry
from service import events, stream_events
from service.events import Resource
from service.stream_events import LagMeasured, PartitionLag
from tests.monitor.scraping import Samples
from tests.monitor.test_metrics import documented, exposed

KIND = "vehicles_status"
LOADED = stream_events.MessagesLoaded(
    [LoadedEntry("t", KIND, Counts(10, 5, 2, 3, conflict=1), FirstReject(0, "$.a", "invalid"))], 4, 512, 0.5
)
LAGS = LagMeasured([PartitionLag("t", 0, 40, 7), PartitionLag("t", 1, 50, 0, 3, 60.0)])


@pytest.fixture
def metrics() -> StreamMetrics:
    return StreamMetrics()


def seen(metrics: StreamMetrics) -> Samples:
    return Samples(metrics.collect())


def test_the_page_lists_each_metric_with_its_type_and_labels(metrics: StreamMetrics) -> None:
    metrics.note(LAGS)
    assert dict(exposed(metrics.collect())) == documented("kafka.md")


def test_all_counters_are_there_from_the_start_at_zero(metrics: StreamMetrics) -> None:
    samples = seen(metrics)
    assert samples.value("mobileye_records_total", kind=KIND, outcome="inserted") == 0
    assert samples.value("mobileye_partitions") == 0
    assert set(samples.counters().values()) == {0}


def test_a_batch_changes_all_that_it_concerns(metrics: StreamMetrics) -> None:
    metrics.note(LOADED)
    metrics.note(LOADED)
    samples = seen(metrics)
    names = ("messages", "message_bytes", "batches", "batch_seconds")
    assert [samples.value(f"mobileye_{name}_total") for name in names] == [8, 1024, 2, 1.0]
    assert samples.value("mobileye_records_read_total", kind=KIND) == 20
    outcomes = ("inserted", "duplicate", "rejected")
    assert [samples.value("mobileye_records_total", kind=KIND, outcome=name) for name in outcomes] == [
        *(10, 4, 6)
    ]
    reasons = ("invalid", "conflict", "refused")
    assert [
        samples.value("mobileye_records_rejected_total", kind=KIND, reason=reason) for reason in reasons
    ] == [4, 2, 0]


def test_partitions_are_those_of_the_last_look_without_those_given_up_since(metrics: StreamMetrics) -> None:
    metrics.note(LAGS)
    samples = seen(metrics)
    assert samples.value("mobileye_partitions") == 2
    assert samples.value("mobileye_position", topic="t", partition="0") == 40
    assert samples.value("mobileye_lag_messages", topic="t", partition="0") == 7
    assert samples.value("mobileye_blocked_messages", topic="t", partition="1") == 3
    assert samples.value("mobileye_blocked_seconds", topic="t", partition="1") == 60
    metrics.note(stream_events.PartitionsGivenUp(["t/0"], False))
    samples = seen(metrics)
    assert samples.value("mobileye_partitions") == 1
    assert not samples.has("mobileye_lag_messages", topic="t", partition="0")
    metrics.note(LagMeasured([]))
    assert seen(metrics).value("mobileye_partitions") == 0


def test_faults_and_rebalances_are_counted(metrics: StreamMetrics) -> None:
    for event in (
        stream_events.PartitionsRead(["t/0@0"]),
        stream_events.PartitionsGivenUp(["t/0"], True),
        stream_events.PositionsFenced("no"),
        stream_events.GapAccepted("t/0", 1, 5, "no"),
    ):
        metrics.note(event)
    samples = seen(metrics)
    assert samples.value("mobileye_rebalances_total") == 2
    assert samples.value("mobileye_batches_fenced_total") == samples.value("mobileye_gaps_total") == 1


def test_a_pause_and_an_outage_last_until_they_end(metrics: StreamMetrics) -> None:
    metrics.note(stream_events.ReadingPaused(5.0))
    metrics.note(events.OutageBegan(Resource.BROKER, "no"))
    samples = seen(metrics)
    assert samples.value("mobileye_paused") == samples.value("mobileye_pauses_total") == 1
    assert samples.value("mobileye_outage", resource="broker") == 1
    metrics.note(stream_events.ReadingResumed(9.0))
    metrics.note(events.OutageEnded(Resource.BROKER, 9.0))
    samples = seen(metrics)
    assert samples.value("mobileye_paused") == samples.value("mobileye_outage", resource="broker") == 0
    assert samples.value("mobileye_pauses_total") == 1
