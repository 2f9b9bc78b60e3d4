"""Metrics as a client of HTTP reads them."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterable
from email.message import Message

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from tests.support import Daemon, until

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Samples:
    """The values of one scrape."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = list(families)
        self._values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self._values[name, tuple(sorted(labels.items()))]

    def has(self, name: str, **labels: str) -> bool:
        return (name, tuple(sorted(labels.items()))) in self._values

    def sum(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels, and maybe others."""
        found = [
            value
            for (found, its), value in self._values.items()
            if found == name and labels.items() <= dict(its).items()
        ]
        assert found, f"no {name} {labels}"
        return sum(found)

    def counters(self) -> dict[object, float]:
        """All values that must never fall."""
        rising = {
            sample.name
            for family in self.families
            if family.type in ("counter", "histogram")
            for sample in family.samples
        }
        return {key: value for key, value in self._values.items() if key[0] in rising}


def address_of(daemon: Daemon) -> str:
    """The beginning of the addresses at which a daemon serves, once it does."""
    line = until(
        lambda: re.findall(r"serving metrics address=(http://\S+)/metrics", daemon.log()), what="the address"
    )
    return str(line[-1])


def get(url: str, method: str = "GET", accept: str = "") -> tuple[int, str, Message]:
    """Code, text and header of an answer."""
    request = urllib.request.Request(url, method=method, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


def scrape(address: str, accept: str = "") -> Samples:
    code, text, _ = get(f"{address}/metrics", accept=accept)
    assert code == 200
    parse = parse_openmetrics if accept else text_string_to_metric_families
    return Samples(parse(text))
