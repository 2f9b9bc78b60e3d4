"""The composition of a worker process of the daemon."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from db.connection import Database
from db.sink import PostgresSink
from processing.loader import Loader
from service.capacity import usable_cpus
from service.heartbeat import Heartbeat
from service.pool import Pool
from sources.folder import FolderSource
from sources.policy import QUIET_SECONDS, OnLoaded

if TYPE_CHECKING:  # a worker imports this module, and has no need of what reads settings
    from config import Settings

#: Workers, unless more are asked for.
MOST_WORKERS = 64


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

    def __call__(self, heartbeat: Heartbeat | None = None) -> Loader:
        heartbeat = heartbeat or Heartbeat()
        sink = PostgresSink(self.database, heartbeat.waiting)

        def beat() -> None:
            heartbeat.beat()
            sink.keep_alive()

        source = FolderSource(
            self.folder, self.failed, self.archive, self.on_loaded, self.quiet_seconds, beat
        )
        return Loader(source, sink, self.max_bytes, self.max_reject_ratio)


def wanted_workers(settings: "Settings") -> int:
    """Returns the number of workers, whether or not the server has connections for so many."""
    return settings.workers or min(usable_cpus(), MOST_WORKERS)


def make_pool(settings: "Settings", database: Database) -> Pool:
    """Returns a pool of workers that load the settings' folder into the database; starts none."""
    start = LoaderFactory(
        str(settings.folder),
        str(settings.failed),
        str(settings.archive or ""),
        settings.on_loaded,
        settings.max_file_bytes,
        database,
        settings.max_reject_ratio,
        settings.quiet_seconds,
    )
    return Pool(wanted_workers(settings), start, settings.quiet_seconds)
