"""Metrics: what each event changes; docs/metrics.md lists them with their types and labels."""

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric

from config import Address, Settings
from monitor.exposure import expose
from monitor.metrics import LOAD_SECONDS, VISIBLE_SECONDS, Durations, Metrics
from monitor.waiting_files import WaitingFiles
from processing.batch import Outcome
from processing.file_types import KINDS
from processing.sink import Counts
from service import events
from service.drop_folder import Backlog
from service.events import Event, NextTry, Resource
from tests.monitor.clock import Clock
from tests.monitor.scraping import Samples, get, scrape
from tests.monitor.test_event_log import SAMPLES
from tests.support import ROOT, until

KIND = "vehicles_status"
STARTED = events.Started("in", "native", 2, None, "data", None)


NO_COUNTS = Counts()


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def metrics(clock: Clock) -> Metrics:
    return Metrics(clock=clock)


def seen(metrics: Metrics) -> Samples:
    return Samples(metrics.collect())


def outcome(state: str = "loaded", counts: Counts = NO_COUNTS, **fields: object) -> Outcome:
    return Outcome("vehicles_status_1.json", state, kind=KIND, counts=counts, **fields)  # type: ignore[arg-type]


# The page -----------------------------------------------------------------------------------------


def documented(page: str = "metrics.md") -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each metric of the page, by its name."""
    text = (ROOT / "docs" / page).read_text()
    rows = re.findall(r"^\| `(mobileye_\w+)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def exposed(families: list[Metric]) -> Iterator[tuple[str, tuple[str, set[str]]]]:
    for family in families:
        if family.name.startswith("mobileye_"):
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            suffix = {"counter": "_total"}.get(family.type, "")
            yield family.name + suffix, (family.type, labels)


def test_the_page_lists_each_metric_with_its_type_and_labels(tmp_path) -> None:
    settings = Settings(watch_folder=tmp_path)
    heard: list[Event] = []
    with expose(settings, Address("127.0.0.1", 0), heard.append, lambda: None) as publish:
        publish(STARTED)
        (served,) = (event for event in heard if isinstance(event, events.MetricsServed))
        address = served.address.removesuffix("/metrics")
        until(lambda: scrape(address).has("mobileye_waiting_files"))
        assert dict(exposed(scrape(address).families)) == documented()


# Files and records --------------------------------------------------------------------------------


def test_all_series_are_there_from_the_start_at_zero(metrics: Metrics) -> None:
    samples = seen(metrics)
    for kind in (*KINDS, "unknown"):
        for state in ("loaded", "duplicate", "failed"):
            assert samples.value("mobileye_files_total", kind=kind, state=state) == 0
    assert set(samples.counters().values()) == {0}


def test_a_loaded_file_changes_all_that_it_concerns(metrics: Metrics) -> None:
    counts = Counts(16, 6, 3, 7, conflict=2, refused=1)
    metrics.note(events.FileLoaded(outcome(counts=counts, size=512, seconds=0.02, visible_seconds=0.3)))
    samples = seen(metrics)
    assert samples.value("mobileye_files_total", kind=KIND, state="loaded") == 1
    assert samples.value("mobileye_loaded_bytes_total", kind=KIND) == 512
    assert samples.value("mobileye_records_read_total", kind=KIND) == 16
    assert [
        samples.value("mobileye_records_total", kind=KIND, outcome=name)
        for name in ("inserted", "duplicate", "rejected")
    ] == [6, 3, 7]
    assert [
        samples.value("mobileye_records_rejected_total", kind=KIND, reason=reason)
        for reason in ("invalid", "conflict", "refused")
    ] == [4, 2, 1]
    assert samples.value("mobileye_arrival_to_visible_seconds_sum", kind=KIND) == 0.3
    assert samples.value("mobileye_arrival_to_visible_seconds_bucket", kind=KIND, le="0.25") == 0
    assert samples.value("mobileye_arrival_to_visible_seconds_bucket", kind=KIND, le="0.5") == 1
    assert samples.value("mobileye_load_seconds_count", kind=KIND) == 1


@pytest.mark.parametrize(
    ("event", "state"), [(events.FileDuplicate, "duplicate"), (events.FileFailed, "failed")]
)
def test_a_file_that_brought_nothing_counts_as_a_file_alone(
    metrics: Metrics, event: type, state: str
) -> None:
    metrics.note(event(outcome(state, size=512)))
    samples = seen(metrics)
    assert samples.value("mobileye_files_total", kind=KIND, state=state) == 1
    assert samples.sum("mobileye_files_total") == 1
    assert samples.sum("mobileye_records_read_total") == samples.sum("mobileye_loaded_bytes_total") == 0
    assert samples.sum("mobileye_arrival_to_visible_seconds_count") == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vehicles_status_1.json", KIND),
        ("objects_detection_1.json", "objects_detection"),
        ("a.json", "unknown"),
    ],
)
def test_a_file_that_was_not_read_has_the_kind_of_its_name(metrics: Metrics, name: str, kind: str) -> None:
    metrics.note(events.FileDuplicate(Outcome(name, "duplicate")))
    assert seen(metrics).value("mobileye_files_total", kind=kind, state="duplicate") == 1


def test_a_kind_that_is_not_known_here_is_unknown(metrics: Metrics) -> None:
    metrics.note(events.FileLoaded(Outcome("a.json", "loaded", kind="tyre_pressures")))
    assert seen(metrics).value("mobileye_files_total", kind="unknown", state="loaded") == 1


@given(st.lists(st.floats(0, 10_000)), st.sampled_from([VISIBLE_SECONDS, LOAD_SECONDS]))
def test_each_bucket_has_what_is_not_above_its_bound(values: list[float], bounds: tuple[float, ...]) -> None:
    durations = Durations(bounds)
    for value in values:
        durations.add(value)
    for name, count in durations.buckets():
        assert count == sum(value <= float(name) for value in values)
    assert durations.sum == pytest.approx(sum(values))


# State --------------------------------------------------------------------------------------------


def outages(metrics: Metrics, resource: str) -> tuple[float, float, float]:
    samples = seen(metrics)
    names = ("mobileye_outage", "mobileye_outages_total", "mobileye_outage_seconds_total")
    return tuple(samples.value(name, resource=resource) for name in names)  # type: ignore[return-value]


def test_the_seconds_of_an_outage_grow_while_it_lasts(metrics: Metrics, clock: Clock) -> None:
    metrics.note(events.OutageBegan(Resource.DATABASE, "it is away"))
    clock.now += 5
    metrics.note(events.OutageReasonChanged(Resource.DATABASE, "it is starting"))
    assert outages(metrics, "database") == (1, 1, 5)
    clock.now += 2
    metrics.note(events.OutageEnded(Resource.DATABASE, 7.0))
    clock.now += 90
    assert outages(metrics, "database") == (0, 1, 7)
    assert outages(metrics, "workers") == (0, 0, 0)


def test_an_outage_of_one_resource_ends_when_another_is_missing(metrics: Metrics, clock: Clock) -> None:
    metrics.note(events.OutageBegan(Resource.DATABASE, "it is away"))
    clock.now += 5
    metrics.note(events.OutageBegan(Resource.WORKERS, "no memory"))
    clock.now += 3
    assert outages(metrics, "database") == (0, 1, 5)
    assert outages(metrics, "workers") == (1, 1, 3)


def test_an_outage_at_the_start_is_over_when_the_daemon_has_started(metrics: Metrics, clock: Clock) -> None:
    metrics.note(events.OutageBegan(Resource.DATABASE, "it is away"))
    clock.now += 4
    metrics.note(STARTED)
    assert outages(metrics, "database") == (0, 1, 4)


def test_workers_are_wanted_and_alive(metrics: Metrics) -> None:
    metrics.note(STARTED)
    metrics.note(events.WorkersCounted(1))
    samples = seen(metrics)
    assert (samples.value("mobileye_workers_wanted"), samples.value("mobileye_workers_alive")) == (2, 1)


def test_an_observer_that_fails_is_seen_until_it_works_again(metrics: Metrics) -> None:
    metrics.note(STARTED)
    assert seen(metrics).value("mobileye_observing", observer="native") == 1
    metrics.note(events.ObserverFailed("in", "no"))
    assert seen(metrics).value("mobileye_observing", observer="native") == 0
    metrics.note(events.ObserverWorks("in"))
    assert seen(metrics).value("mobileye_observing", observer="native") == 1


def test_without_an_observer_none_is_missed(metrics: Metrics) -> None:
    metrics.note(events.Started("in", "off", 2, None, "data", None))
    assert not [
        family for family in metrics.collect() if family.name == "mobileye_observing" and family.samples
    ]


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (events.WorkerDied(["a"], "no", NextTry()), "mobileye_worker_deaths_total"),
        (events.FilesSuspected(["a"], "no", NextTry()), "mobileye_batches_suspected_total"),
        (events.FileRecovered("a"), "mobileye_files_recovered_total"),
        (events.ObserverRestarted(), "mobileye_observer_restarts_total"),
        (events.FolderListed(3), "mobileye_scans_total"),
    ],
)
def test_what_has_no_label_is_counted(metrics: Metrics, event: Event, name: str) -> None:
    metrics.note(event)
    metrics.note(event)
    assert seen(metrics).value(name) == 2


def test_every_event_can_be_noted(metrics: Metrics) -> None:
    for event in SAMPLES:
        metrics.note(event)
    assert metrics.collect()


# The watch folder ---------------------------------------------------------------------------------


def test_what_waits_is_seen_and_absent_while_the_folder_cannot_be_listed() -> None:
    found = Backlog("in", files=3, bytes=70, oldest_seconds=12.5)
    waiting = WaitingFiles(lambda: found)
    assert Samples(waiting.collect()).value("mobileye_watch_folder_readable") == 0
    waiting.start()
    samples = until(lambda: (samples := Samples(waiting.collect())).has("mobileye_waiting_files") and samples)
    assert samples.value("mobileye_watch_folder_readable") == 1
    names = ("mobileye_waiting_files", "mobileye_waiting_bytes", "mobileye_oldest_waiting_seconds")
    assert [samples.value(name) for name in names] == [3, 70, 12.5]
    found = Backlog("in", "Stale file handle")
    samples = until(
        lambda: not (samples := Samples(waiting.collect())).has("mobileye_waiting_files") and samples
    )
    assert samples.value("mobileye_watch_folder_readable") == 0
    assert waiting.complaint() == "the watch folder can't be listed: Stale file handle"
    waiting.stop()


# Faults -------------------------------------------------------------------------------------------


def test_a_fault_of_the_metrics_is_published_once_and_stops_nothing(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a fault")

    monkeypatch.setattr(Metrics, "note", fail)
    heard: list[Event] = []
    settings = Settings(watch_folder=tmp_path)
    with expose(settings, Address("127.0.0.1", 0), heard.append, lambda: None) as publish:
        publish(events.FileRecovered("a"))
        publish(events.FileRecovered("b"))
    assert [event for event in heard if not isinstance(event, events.MetricsServed)] == [
        events.FileRecovered("a"),
        events.MetricsFailed("KeyError: 'a fault'"),
        events.FileRecovered("b"),
    ]


def test_a_page_that_fails_is_published_and_the_next_is_served(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a fault")

    heard: list[Event] = []
    settings = Settings(watch_folder=tmp_path)
    with expose(settings, Address("127.0.0.1", 0), heard.append, lambda: None):
        address = str(heard[0].address).removesuffix("/metrics")  # type: ignore[attr-defined]
        with monkeypatch.context() as patched:
            patched.setattr(Metrics, "collect", fail)
            with pytest.raises(OSError):
                get(f"{address}/metrics")
        assert get(f"{address}/metrics")[0] == 200
    assert events.MetricsFailed("KeyError: 'a fault'") in heard
