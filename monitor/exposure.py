"""Exposes the daemon to Prometheus and to health checks: makes the parts, and runs them beside it."""

import platform
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from config import Address, Settings
from monitor.health import Health
from monitor.metrics import Metrics
from monitor.metrics_server import Answer, MetricsServer, Responder
from monitor.waiting_files import WaitingFiles
from service.drop_folder import Looker, measure
from service.events import Event, MetricsFailed, MetricsServed, Publish, Resource
from service.kept_client import KeptClient

#: A listing mostly waits for the network.
_PAUSES_A_LISTING = 20

_PROJECT = Path(__file__).parent.parent / "pyproject.toml"


@contextmanager
def expose(
    settings: Settings,
    address: Address,
    publish: Publish,
    ask: Callable[[], None],
    destination: Resource = Resource.DATABASE,
) -> Iterator[Publish]:
    """Serves metrics and health while it is entered; yields a function that publishes to them, too.

    ask() asks the destination whether it takes rows now. Raises Misconfigured if nobody can listen at the
    address. Later faults stop nothing; the first is published.
    """
    if settings.bucket is None:
        waiting = WaitingFiles(partial(measure, str(settings.folder)))
    else:  # whose listing costs money, each time
        looker = Looker(settings, KeptClient(settings.s3_endpoint_url))
        waiting = WaitingFiles(partial(looker.look, 0), settings.rescan_seconds, _PAUSES_A_LISTING)
    metrics = Metrics()
    health = Health(waiting.complaint, ask, destination)
    with _served(address, publish, [metrics.note, health.note], [metrics, waiting], health) as publish_to_all:
        try:
            waiting.start()
            yield publish_to_all
        finally:
            waiting.stop()


@contextmanager
def expose_consumer(
    address: Address, publish: Publish, ask_database: Callable[[], None]
) -> Iterator[Publish]:
    """Serves metrics and health of the consumer of topics, as expose() does of the daemon."""
    from monitor.stream_metrics import StreamMetrics  # only a consumer needs it

    metrics, health = StreamMetrics(), Health(lambda: "", ask_database)
    with _served(address, publish, [metrics.note, health.note], [metrics], health) as publish_to_all:
        yield publish_to_all


@contextmanager
def _served(
    address: Address,
    publish: Publish,
    notes: Sequence[Publish],
    collectors: Sequence[Collector],
    health: Health,
) -> Iterator[Publish]:
    faults = _Faults(publish)
    server = MetricsServer(address, _pages(_registry(*collectors), health), faults.report)

    def publish_to_all(event: Event) -> None:
        publish(event)
        try:
            for note in notes:
                note(event)
        except Exception as error:  # noqa: BLE001  # whoever publishes has to go on
            faults.report(error)

    publish(MetricsServed(f"http://{server.start()}/metrics"))
    try:
        yield publish_to_all
    finally:
        server.stop()


class _Faults:
    """The faults of the metrics, of which the first is published."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._is_published = False

    def report(self, error: Exception) -> None:
        if not self._is_published:
            self._is_published = True
            self._publish(MetricsFailed(f"{type(error).__name__}: {error}"))


def _registry(*collectors: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    version = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["version"]
    for collector in (*collectors, _Build(version)):
        registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


def _pages(registry: CollectorRegistry, health: Health) -> dict[str, Responder]:
    def show_metrics(accepted: str) -> Answer:
        encode, content_type = choose_encoder(accepted)
        return Answer(200, encode(registry), content_type)

    def show(complaint: Callable[[], str], accepted: str) -> Answer:
        reason = complaint()
        return Answer(503 if reason else 200, f"{reason or 'ok'}\n".encode("utf-8", "backslashreplace"))

    return {
        "/metrics": show_metrics,
        "/healthz": partial(show, health.why_not_alive),
        "/readyz": partial(show, health.why_not_ready),
    }


class _Build(Collector):
    """The version of the program, and of Python."""

    def __init__(self, version: str) -> None:
        self._labels = {"version": version, "python": platform.python_version()}

    def collect(self) -> list[Metric]:
        return [InfoMetricFamily("mobileye_build", "Versions of the program and of Python", self._labels)]
