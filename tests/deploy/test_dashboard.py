"""The Grafana dashboard: a real Prometheus that scrapes a real daemon has data for each of its queries."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from config import Address
from monitor.exposure import expose_consumer
from service.events import Event, MetricsServed
from service.stream_events import LagMeasured, PartitionLag
from tests.deploy.prometheus import DEPLOY, Prometheus, needs_prometheus, running_prometheus
from tests.monitor.scraping import address_of
from tests.monitor.test_exposure import drop_all_sorts
from tests.monitor.test_metrics import documented
from tests.monitor.test_stream_log import LOADED
from tests.support import Daemon, Server, until

DASHBOARD = json.loads((DEPLOY / "grafana" / "mobileye.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]

#: What Grafana puts in the place of its variables.
VALUES = {"$__rate_interval": "5s", "$__range": "60s", "$instance": ".*"}


def filled(expression: str) -> str:
    for name, value in VALUES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped a daemon while it loaded files of all sorts, and a consumer's metrics."""
    folder = tmp_path_factory.mktemp("prometheus")
    with server.database() as database, consuming() as (consumer, consume):
        daemon = Daemon(folder / "daemon", database.url, METRICS_ADDRESS="127.0.0.1:0").start()
        try:
            target = address_of(daemon).removeprefix("http://")
            with running_prometheus(folder, [target, consumer]) as prometheus:
                until(lambda: prometheus.value("sum(up)") == 2, what="the first scrapes")
                load_until_seen(daemon, consume, prometheus)
                yield prometheus
        finally:
            daemon.stop()


@contextmanager
def consuming() -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of a consumer's metrics, and a function by which it loads some; there is no broker."""
    heard: list[Event] = []
    lags = LagMeasured([PartitionLag("t", 0, 40, 7), PartitionLag("t", 1, 50, 0, 3, 60.0)])
    with expose_consumer(Address("127.0.0.1", 0), heard.append, lambda: None) as publish:
        (served,) = (event for event in heard if isinstance(event, MetricsServed))

        def consume() -> None:
            publish(LOADED)
            publish(lags)

        yield served.address.removeprefix("http://").removesuffix("/metrics"), consume


def load_until_seen(daemon: Daemon, consume: Callable[[], None], prometheus: Prometheus) -> None:
    """Drops files until their rates are there, of each kind."""
    turns = iter(range(1_000_000))

    def is_seen() -> bool:
        drop_all_sorts(daemon, next(turns))
        consume()
        rates = prometheus.query("rate(mobileye_records_read_total[5s]) > 0")
        return len(rates) == 3  # two kinds of the daemon have records, and one of the consumer

    until(is_seen, 30)
    daemon.until_empty()


@needs_prometheus
@pytest.mark.parametrize(("title", "expression"), QUERIES, ids=[title for title, _ in QUERIES])
def test_each_query_has_data(prometheus: Prometheus, title: str, expression: str) -> None:
    def is_answered() -> list[Any]:
        now = time.time()
        found = prometheus.ask("query_range", query=filled(expression), start=now - 60, end=now, step=1)[
            "result"
        ]
        return [series for series in found if any(value != "NaN" for _, value in series["values"])]

    until(is_answered, what=f"data for {title}: {filled(expression)}")


@needs_prometheus
def test_the_variables_and_annotations_have_data(prometheus: Prometheus) -> None:
    (variable,) = (found for found in DASHBOARD["templating"]["list"] if found["type"] == "query")
    match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
    assert match
    assert len(prometheus.ask(f"label/{match[2]}/values", **{"match[]": match[1]})) == 2
    for annotation in DASHBOARD["annotations"]["list"]:
        assert prometheus.query(filled(annotation["expr"])) == []  # there was no outage


@needs_prometheus
def test_the_alert_rules_are_evaluated_and_none_is_pending_but_for_failed_files(
    prometheus: Prometheus,
) -> None:
    def rules() -> list[Any]:
        return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]

    until(lambda: all(rule["health"] != "unknown" for rule in rules()))
    assert {rule["health"] for rule in rules()} == {"ok"}
    active = {alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"]}
    assert len(rules()) > 10 and active <= {"MobileyeFilesFailed", "MobileyeManyRejects"}


def test_the_dashboard_asks_only_for_metrics_that_are_documented() -> None:
    text = json.dumps(DASHBOARD)
    named = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"mobileye_[a-z_]+", text)}
    assert named and named <= {*documented(), *documented("kafka.md")}


def test_panels_do_not_overlap_and_each_has_a_description() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert panel["description"] and not cells & taken and place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
