"""The composition of a worker process; apart from the daemon's, so that a worker does not import that."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from db.connection import Database
from db.sink import AT_HAND, AT_HAND_SECONDS, IDLE_SECONDS, PostgresSink
from processing.each import Each, in_turn
from processing.loader import Loader, Report, report_nothing
from processing.source import Source
from service.heartbeat import Heartbeat
from sources.at_once import AtOnce
from sources.local_file import Beat
from sources.policy import QUIET_SECONDS, BucketEnds, BucketPlace, OnLoaded

if TYPE_CHECKING:
    from config import Settings


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
    """Makes the loader of a worker process, there; a remote source gets a file whole before it is loaded."""

    source: SourceFactory
    max_bytes: int
    database: Database
    max_reject_ratio: float = 1.0
    max_future_hours: float = 0.0
    is_remote: bool = False

    @classmethod
    def of(cls, settings: "Settings", source: SourceFactory, database: Database) -> Self:
        """Returns the factory of the settings."""
        limits = settings.max_file_bytes, database, settings.max_reject_ratio, settings.max_future_hours
        return cls(source, *limits, settings.bucket is not None)

    def __call__(self, heartbeat: Heartbeat | None = None) -> Loader:
        heartbeat = heartbeat or Heartbeat()
        sink = PostgresSink(
            self.database,
            heartbeat.waiting,
            AT_HAND_SECONDS if self.is_remote else IDLE_SECONDS,
            max_future_hours=self.max_future_hours,
            patient=AT_HAND if self.is_remote else "",
        )
        return self.make(sink, heartbeat.beat, heartbeat.report)

    def make(self, sink: PostgresSink, on_beat: Beat, report: Report = report_nothing) -> Loader:
        """Returns a loader into this sink; on_beat() is called with each step in reading."""

        def beat() -> None:
            on_beat()
            sink.keep_alive()

        each: Each = AtOnce() if self.is_remote else in_turn  # requests are waited for, system calls are not
        source, ratio = self.source(beat), self.max_reject_ratio
        return Loader(source, sink, self.max_bytes, ratio, report=report, each=each)
