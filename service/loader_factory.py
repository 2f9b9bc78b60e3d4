"""The composition of a worker process; apart from the daemon's, so that a worker does not import that."""

from dataclasses import dataclass
from typing import Any, Protocol

from db.connection import Database
from db.sink import PostgresSink
from processing.loader import Loader
from processing.source import Source
from service.heartbeat import Heartbeat
from sources.local_file import Beat
from sources.policy import QUIET_SECONDS, BucketEnds, BucketPlace, OnLoaded


class SourceFactory(Protocol):
    """Makes the source of a worker process, there; it is picklable."""

    def __call__(self, beat: Beat) -> Source[Any]: ...


@dataclass(frozen=True)
class FolderFactory:
    """Makes the source of a folder."""

    folder: str
    failed: str
    archive: str
    on_loaded: OnLoaded
    quiet_seconds: float = QUIET_SECONDS

    def __call__(self, beat: Beat) -> Source[Any]:
        from sources.folder import FolderSource

        return FolderSource(self.folder, self.failed, self.archive, self.on_loaded, self.quiet_seconds, beat)


@dataclass(frozen=True)
class BucketFactory:
    """Makes the source of a bucket."""

    place: BucketPlace
    ends: BucketEnds
    endpoint_url: str | None

    def __call__(self, beat: Beat) -> Source[Any]:
        from sources.bucket import BucketSource
        from sources.s3_client import make_client

        return BucketSource(make_client(self.endpoint_url), self.place, self.ends, beat)


@dataclass(frozen=True)
class LoaderFactory:
    """Makes the loader of a worker process, there."""

    source: SourceFactory
    max_bytes: int
    database: Database
    max_reject_ratio: float = 1.0
    max_future_hours: float = 0.0

    def __call__(self, heartbeat: Heartbeat | None = None) -> Loader:
        heartbeat = heartbeat or Heartbeat()
        sink = PostgresSink(self.database, heartbeat.waiting, max_future_hours=self.max_future_hours)

        def beat() -> None:
            heartbeat.beat()
            sink.keep_alive()

        return Loader(self.source(beat), sink, self.max_bytes, self.max_reject_ratio, report=heartbeat.report)
