"""The composition of a worker process; apart from the daemon's, so that a worker does not import that."""

from dataclasses import dataclass

from db.connection import Database
from db.sink import PostgresSink
from processing.loader import Loader
from service.heartbeat import Heartbeat
from sources.folder import FolderSource
from sources.policy import QUIET_SECONDS, OnLoaded


@dataclass(frozen=True)
class LoaderFactory:
    """Makes the loader of a worker process, there."""

    folder: str
    failed: str
    archive: str
    on_loaded: OnLoaded
    max_bytes: int
    database: Database
    max_reject_ratio: float = 1.0
    quiet_seconds: float = QUIET_SECONDS
    max_future_hours: float = 0.0

    def __call__(self, heartbeat: Heartbeat | None = None) -> Loader:
        heartbeat = heartbeat or Heartbeat()
        sink = PostgresSink(self.database, heartbeat.waiting, max_future_hours=self.max_future_hours)

        def beat() -> None:
            heartbeat.beat()
            sink.keep_alive()

        source = FolderSource(
            self.folder, self.failed, self.archive, self.on_loaded, self.quiet_seconds, beat
        )
        return Loader(source, sink, self.max_bytes, self.max_reject_ratio, report=heartbeat.report)
