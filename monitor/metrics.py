"""Counts events, and shows the counts as Prometheus's metrics; docs/metrics.md lists them."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from threading import Lock

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from processing.batch import Outcome
from processing.file_types import KINDS, Kinds, kind_of_name
from processing.records import Reason
from service import events
from service.events import Event, Resource

#: The kind of files whose name and content promise none that is known.
UNKNOWN = "unknown"

#: Bounds of the buckets of seconds.
VISIBLE_SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
LOAD_SECONDS = (
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    300,
)

#: The state of each event that ends a file.
_STATES: dict[type[Event], str] = {
    events.FileLoaded: "loaded",
    events.FileDuplicate: "duplicate",
    events.FileFailed: "failed",
}
_OUTCOMES = ("inserted", "duplicate", "rejected")

#: Name and meaning of each counter that has no label.
_COUNTERS = {
    "mobileye_batches_suspected": "Batches that failed though the database answered others",
    "mobileye_files_recovered": "Files put back that a dead worker had claimed",
    "mobileye_observer_restarts": "Replacements of the observer of new files",
    "mobileye_scans": "Scans of the watch folder",
    "mobileye_worker_deaths": "Batches whose worker process ended, hung or failed",
}

_COUNTED: dict[type[Event], str] = {
    events.FilesSuspected: "mobileye_batches_suspected",
    events.FileRecovered: "mobileye_files_recovered",
    events.ObserverRestarted: "mobileye_observer_restarts",
    events.FolderListed: "mobileye_scans",
    events.WorkerDied: "mobileye_worker_deaths",
}


class Durations:
    """Seconds, counted in buckets."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Returns the upper bound of each bucket, and how many are not above it."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))


class _OfKind:
    """The counts of the files of one kind."""

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()
        self.records: Counter[str] = Counter()
        self.rejected: Counter[Reason] = Counter()
        self.records_read = self.bytes_loaded = 0
        self.visible, self.load = Durations(VISIBLE_SECONDS), Durations(LOAD_SECONDS)

    def add(self, state: str, outcome: Outcome) -> None:
        self.files[state] += 1
        self.load.add(outcome.seconds)
        if state == "loaded":
            self.bytes_loaded += outcome.size
            counts = outcome.counts
            self.records_read += counts.read
            self.records["inserted"] += counts.inserted
            self.records["duplicate"] += counts.duplicate
            self.records["rejected"] += counts.rejected
            if counts.rejected:
                for reason in Reason:
                    self.rejected[reason] += counts.rejected_for(reason)
            if outcome.visible_seconds is not None:
                self.visible.add(outcome.visible_seconds)


class _Outages:
    """The outages of one resource; since is when the present one began."""

    def __init__(self) -> None:
        self.count = 0
        self.since: float | None = None
        self._ended_seconds = 0.0

    def begin(self, now: float) -> None:
        if self.since is None:
            self.count += 1
            self.since = now

    def end(self, now: float) -> None:
        self._ended_seconds = self.seconds(now)
        self.since = None

    def seconds(self, now: float) -> float:
        return self._ended_seconds + (0.0 if self.since is None else now - self.since)


class Metrics(Collector):
    """The counts since the start: one event changes all that it concerns before anybody can read it."""

    def __init__(self, kinds: Kinds = KINDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._names = kinds
        self._clock = clock
        self._lock = Lock()
        # All are there from the beginning, at zero: a rate needs two values of each.
        self._kinds = {name: _OfKind() for name in [*kinds, UNKNOWN]}
        self._counts = dict.fromkeys(_COUNTERS, 0)
        self._outages = {resource: _Outages() for resource in Resource}
        self._workers_wanted = self._workers_alive = 0
        self._observer = ""
        self._is_observing = True

    def note(self, event: Event) -> None:
        """Counts an event, of any thread."""
        if isinstance(event, events.LoopTurned):  # the most frequent one, of which health makes more
            return
        with self._lock:
            if isinstance(event, events.FileLoaded | events.FileDuplicate | events.FileFailed):
                self._of(event.outcome).add(_STATES[type(event)], event.outcome)
                return
            if name := _COUNTED.get(type(event)):
                self._counts[name] += 1
            self._note_state(event)

    def _note_state(self, event: Event) -> None:
        match event:
            case events.Started():
                self._workers_wanted, self._observer = event.workers, event.observer
                self._end_outages()  # one that came before is over now, or the daemon would not have started
            case events.OutageBegan(resource):
                self._end_outages()  # there is one at a time
                self._outages[resource].begin(self._clock())
            case events.OutageEnded():
                self._end_outages()
            case events.WorkersCounted(alive):
                self._workers_alive = alive
            case events.ObserverFailed():
                self._is_observing = False
            case events.ObserverWorks():
                self._is_observing = True

    def _end_outages(self) -> None:
        for outages in self._outages.values():
            outages.end(self._clock())

    def _of(self, outcome: Outcome) -> _OfKind:
        """Returns the counts of its kind; what was not read, such as a duplicate, has that of its name."""
        kind = outcome.kind
        if kind is None and (promised := kind_of_name(outcome.name, self._names)):
            kind = promised.name
        return self._kinds.get(kind or UNKNOWN) or self._kinds[UNKNOWN]

    def collect(self) -> list[Metric]:
        """Returns all counts as they are between two events."""
        with self._lock:
            return [
                *self._of_files(),
                *self._of_records(),
                *self._of_durations(),
                *self._of_outages(),
                *self._of_workers(),
                *(CounterMetricFamily(name, text, self._counts[name]) for name, text in _COUNTERS.items()),
            ]

    def _of_files(self) -> list[Metric]:
        files = CounterMetricFamily(
            "mobileye_files", "Files that came to their end, by how they ended", labels=["kind", "state"]
        )
        loaded = CounterMetricFamily(
            "mobileye_loaded_bytes", "Bytes of loaded files, as dropped", labels=["kind"]
        )
        for kind, counts in self._kinds.items():
            for state in _STATES.values():
                files.add_metric([kind, state], counts.files[state])
            loaded.add_metric([kind], counts.bytes_loaded)
        return [files, loaded]

    def _of_records(self) -> list[Metric]:
        read = CounterMetricFamily(
            "mobileye_records_read",
            "Records of loaded files; the sum of mobileye_records_total",
            labels=["kind"],
        )
        records = CounterMetricFamily(
            "mobileye_records", "Records of loaded files, by what became of them", labels=["kind", "outcome"]
        )
        rejected = CounterMetricFamily(
            "mobileye_records_rejected",
            "Rejected records of loaded files, by reason",
            labels=["kind", "reason"],
        )
        for kind, counts in self._kinds.items():
            read.add_metric([kind], counts.records_read)
            for outcome in _OUTCOMES:
                records.add_metric([kind, outcome], counts.records[outcome])
            for reason in Reason:
                rejected.add_metric([kind, reason.value], counts.rejected[reason])
        return [read, records, rejected]

    def _of_durations(self) -> list[Metric]:
        visible = HistogramMetricFamily(
            "mobileye_arrival_to_visible_seconds",
            "Seconds from the arrival of a loaded file to the COMMIT of its rows",
            labels=["kind"],
        )
        load = HistogramMetricFamily(
            "mobileye_load_seconds",
            "Seconds that a worker spent on a file, which is an equal share of those of its batch",
            labels=["kind"],
        )
        for kind, counts in self._kinds.items():
            visible.add_metric([kind], counts.visible.buckets(), counts.visible.sum)
            load.add_metric([kind], counts.load.buckets(), counts.load.sum)
        return [visible, load]

    def _of_outages(self) -> list[Metric]:
        now, labels = self._clock(), ["resource"]
        present = GaugeMetricFamily("mobileye_outage", "1 during an outage, else 0", labels=labels)
        begun = CounterMetricFamily("mobileye_outages", "Outages that began", labels=labels)
        seconds = CounterMetricFamily(
            "mobileye_outage_seconds", "Seconds of outages, with those of the present one", labels=labels
        )
        for resource, outages in self._outages.items():
            name = [resource.name.lower()]
            present.add_metric(name, outages.since is not None)
            begun.add_metric(name, outages.count)
            seconds.add_metric(name, outages.seconds(now))
        return [present, begun, seconds]

    def _of_workers(self) -> list[Metric]:
        observing = GaugeMetricFamily(
            "mobileye_observing",
            "1 if the system reports new files, 0 if only scans find them",
            labels=["observer"],
        )
        if self._observer not in ("", "off"):
            observing.add_metric([self._observer], self._is_observing)
        return [
            GaugeMetricFamily(
                "mobileye_workers_wanted", "Worker processes that there should be", self._workers_wanted
            ),
            GaugeMetricFamily(
                "mobileye_workers_alive", "Worker processes alive at the last scan", self._workers_alive
            ),
            observing,
        ]
