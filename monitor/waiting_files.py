"""Looks at the watch folder again and again, and shows what waits in it as Prometheus's metrics."""

import time
from collections.abc import Callable
from threading import Event, Thread

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.drop_folder import Backlog

#: The pause is at least so many times as long as the look was: of a huge backlog a look takes seconds.
_PAUSES_A_LOOK = 200

#: A look that takes longer is one at a folder that does not answer, such as that of a lost server.
_LONGEST_LOOK_SECONDS = 60.0


class WaitingFiles(Collector):
    """The last look at the watch folder.

    Each look is made in a thread of its own: a folder that does not answer holds up nothing else.
    """

    def __init__(
        self, look: Callable[[], Backlog], pause_seconds: float = 1.0, pauses_a_look: int = _PAUSES_A_LOOK
    ) -> None:
        """Starts nothing. There is at least this pause between two looks, and so many times their length."""
        self._look = look
        self._pause_seconds = pause_seconds
        self._pauses_a_look = pauses_a_look
        self._stop = Event()
        self._thread = Thread(target=self._run, name="waiting files", daemon=True)
        self._seen: Backlog | None = None
        self._began: float | None = None  # the look that is under way

    def start(self) -> None:
        """Raises OSError if the system has no thread."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OSError(f"the system has no thread for the metrics: {error}") from None

    def stop(self) -> None:
        self._stop.set()

    def complaint(self) -> str:
        """Returns why the folder can't be read; empty if it can."""
        began = self._began
        if began is not None and time.monotonic() - began > _LONGEST_LOOK_SECONDS:
            return f"the watch folder has not answered for {time.monotonic() - began:.0f} s"
        if self._seen is None:
            return "the watch folder was not looked at yet"
        return f"the watch folder can't be listed: {self._seen.error}" if self._seen.error else ""

    def collect(self) -> list[Metric]:
        """Returns what the last look saw; only whether it can be read if that is not the case."""
        is_readable = not self.complaint()
        found: list[Metric] = [
            GaugeMetricFamily(
                "mobileye_watch_folder_readable", "1 if the watch folder can be listed, else 0", is_readable
            )
        ]
        if is_readable and (seen := self._seen) is not None:
            found += [
                GaugeMetricFamily("mobileye_waiting_files", "Files in the watch folder", seen.files),
                GaugeMetricFamily(
                    "mobileye_waiting_bytes", "Bytes of the files in the watch folder", seen.bytes
                ),
                GaugeMetricFamily(
                    "mobileye_oldest_waiting_seconds",
                    "Age of the oldest file in the watch folder, 0 if there is none",
                    max(0.0, seen.oldest_seconds or 0.0),
                ),
            ]
        return found

    def _run(self) -> None:
        while not self._stop.is_set():
            began = self._began = time.monotonic()
            self._seen = self._look()
            self._began = None
            took = time.monotonic() - began
            self._stop.wait(max(self._pause_seconds, self._pauses_a_look * took))
