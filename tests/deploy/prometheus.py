"""A real Prometheus: Debian's, as a process of the tests' own."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT, free_port, until

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Debian's promtool")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's prometheus")

_CONFIG = """
global:
  scrape_interval: 1s
  evaluation_interval: 1s
scrape_configs:
  - job_name: mobileye
    static_configs:
      - targets: [{targets}]
rule_files: ["{rules}"]
"""


class Prometheus:
    """A server that scrapes each second."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **parameters: object) -> Any:
        """The data of an answer; fails with the server's reason if it is no success."""
        url = f"{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                found = json.load(error)
        assert found["status"] == "success", f"{parameters}: {found}"
        return found["data"]

    def is_ready(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self._address}/-/ready", timeout=10):
            return True
        return False

    def query(self, expression: str) -> list[Any]:
        """The samples of an expression now."""
        result: list[Any] = self.ask("query", query=expression)["result"]
        return result

    def value(self, expression: str) -> float | None:
        """The value of the only sample, if there is one."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if len(found) == 1 else None


@contextmanager
def running_prometheus(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """Yields a server that scrapes these addresses and has the project's alert rules."""
    config, port = folder / "prometheus.yml", free_port()
    quoted = ", ".join(f'"{target}"' for target in targets)
    config.write_text(_CONFIG.format(targets=quoted, rules=RULES))
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    with open(folder / "prometheus.log", "wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    server = Prometheus(port)
    try:
        until(server.is_ready, 30, f"prometheus answers: {folder / 'prometheus.log'}")
        yield server
    finally:
        process.terminate()
        process.wait(20)
