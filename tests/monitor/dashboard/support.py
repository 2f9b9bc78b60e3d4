"""The dashboard as its user starts it, beside a daemon of the tests."""

import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from tests.support import ROOT, Daemon, detections, free_port, statuses, until

#: The times of these documents: near enough to be in the usual range of a page.
NOW = datetime.now(UTC)


class Dashboard:
    """python main.py dashboard, in the folder and with the settings of a daemon."""

    def __init__(self, daemon: Daemon, **settings: str) -> None:
        self._daemon = daemon
        self._settings = settings
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = daemon.folder / "dashboard.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, address: str | None = None, *, wait: bool = True) -> "Dashboard":
        (self._daemon.folder / ".env").touch()
        words = ["dashboard", "--address", address or f"127.0.0.1:{self.port}"]
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "main.py"), *words],
                cwd=self._daemon.folder,
                env={**self._daemon.environment(), **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            until(self.answers, 90, f"the dashboard answers; log:\n{self.log()}")
        return self

    def answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log()
        try:
            self.get("/")
        except HTTPError:  # an answer, too
            return True
        except OSError:
            return False
        return True

    def get(self, path: str, **headers: str) -> str:
        request = urllib.request.Request(self.url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read().decode())

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        assert self.process is not None
        process, self.process = self.process, None
        process.send_signal(number)
        return process.wait(20)


@contextmanager
def serving(daemon: Daemon, **settings: str) -> Iterator[Dashboard]:
    dashboard = Dashboard(daemon, **settings).start()
    try:
        yield dashboard
    finally:
        if dashboard.process is not None:
            dashboard.stop(signal.SIGKILL)


def ago(**past: float) -> str:
    return (NOW - timedelta(**past)).isoformat(timespec="milliseconds")


def seen(vehicle: str, when: str, **counts: int) -> dict[str, Any]:
    return {
        "vehicle_id": vehicle,
        "detection_time": when,
        "detections": [{"object_type": name, "object_value": count} for name, count in counts.items()],
    }


def fleet_files(folder: Path) -> dict[str, bytes]:
    """Two vehicles, one of which has an accident."""
    return {
        "objects_detection_1.json": detections(
            seen("vehicle-1", ago(hours=3), cars=4, pedestrians=2),
            seen("vehicle-1", ago(hours=2, minutes=5), cars=7),
            seen("vehicle-1", ago(hours=1), trucks=1),
            seen("vehicle-2", ago(hours=5), signs=3),
        ),
        "vehicles_status_1.json": statuses(
            {"vehicle_id": "vehicle-1", "report_time": ago(hours=4), "status": "driving"},
            {"vehicle_id": "vehicle-1", "report_time": ago(hours=2), "status": "accident"},
            {"vehicle_id": "vehicle-2", "report_time": ago(hours=5), "status": "parking"},
        ),
    }
