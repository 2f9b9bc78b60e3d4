"""What a worker process of the daemon is made of."""

from dataclasses import dataclass

from config import Settings
from db.connection import Database
from db.sink import PostgresSink
from processing.pool import Pool
from processing.processor import Processor
from processing.pulse import Pulse
from processing.settle import OnLoaded, Settler


@dataclass(frozen=True)
class StartWorker:
    """Makes the processor of a worker process, there."""

    folder: str
    failed: str
    archive: str
    on_loaded: OnLoaded
    max_bytes: int
    database: Database

    def __call__(self, pulse: Pulse | None = None) -> Processor:
        pulse = pulse or Pulse()
        settler = Settler(self.folder, self.failed, self.archive, self.on_loaded)
        sink = PostgresSink(self.database, pulse.waiting)
        return Processor(self.folder, sink, settler, self.max_bytes, pulse)


def start_pool(settings: Settings, database: Database) -> Pool:
    """The worker processes that load the settings' folder into the database."""
    start = StartWorker(
        str(settings.folder),
        str(settings.failed),
        str(settings.archive or ""),
        settings.on_loaded,
        settings.max_file_bytes,
        database,
    )
    return Pool(settings.workers, start)
