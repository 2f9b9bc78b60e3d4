"""Events of the daemon, one frozen value each: any thread publishes, the log and other views subscribe."""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from msgspec import Struct

from processing.batch import Outcome


class Event(Struct, frozen=True):
    """The base of all events."""


#: Takes each event that is published. It must not raise, and must not wait.
Publish = Callable[[Event], None]


# The program --------------------------------------------------------------------------------------


class Started(Event, frozen=True):
    """The daemon begins to watch. Exactly one of embedded_in, outside_database and topics is given."""

    folder: str
    observer: str
    workers: int
    env_file: str | None
    embedded_in: str | None
    outside_database: str | None
    topics: str | None = None


class Stopped(Event, frozen=True):
    """The program ends; totals counts files by their state, and rows and rejects."""

    totals: Mapping[str, int]


class Ended(Event, frozen=True):
    """The program ends because of an error; with code 2 settings or rights have to be fixed."""

    reason: str
    code: int


class LoopTurned(Event, frozen=True):
    """The main loop of the daemon begins its next turn, also while nothing happens: it is alive."""


class WorkersCounted(Event, frozen=True):
    """The number of workers that are alive is another one than before; they are counted at each scan."""

    alive: int


class MetricsServed(Event, frozen=True):
    """Metrics and health can be asked for under this address, from now until the end."""

    address: str


class MetricsFailed(Event, frozen=True):
    """A fault of the metrics, the first one: they may be wrong from now on. Loading goes on."""

    reason: str


# Files --------------------------------------------------------------------------------------------


class FileLoaded(Event, frozen=True):
    """The rows of a file are committed; outcome.reason says why the file is still there, if it is."""

    outcome: Outcome


class FileDuplicate(Event, frozen=True):
    """A file with bytes that the ledger has already was disposed of."""

    outcome: Outcome


class FileFailed(Event, frozen=True):
    """A file was recorded as failed and moved to the failed folder."""

    outcome: Outcome


class FileWaiting(Event, frozen=True):
    """A file was tried several times and was not ready, or can't be disposed of."""

    outcome: Outcome


class FileRecovered(Event, frozen=True):
    """A file that a dead worker had claimed was put back into the watch folder."""

    file: str


class WritersHidden(Event, frozen=True):
    """The first file whose writers the daemon can't see."""

    file: str


class ObjectsReturned(Event, frozen=True):
    """Objects that the function of AWS Lambda could not load now: their event is delivered again."""

    files: Sequence[str]
    reason: str


class NothingToLoad(Event, frozen=True):
    """An event of AWS Lambda, or a part of one, that names no object to be loaded."""

    reason: str


# Progress -----------------------------------------------------------------------------------------


class FileProgress(Struct, frozen=True):
    """The part of a large file that a worker has read: bytes as dropped, and records."""

    file: str
    size: int
    read_bytes: int
    records: int


class WorkChanged(Event, frozen=True):
    """The work before the workers and in their hands; published at most a few times a second, if it changed.

    ready: files that may be loaded now; waiting: those that are not tried before they are due.
    """

    ready: int
    in_flight: int
    waiting: int
    workers: int
    busy: int
    large: Sequence[FileProgress] = ()


# Batches that failed ------------------------------------------------------------------------------


class NextTry(Struct, frozen=True):
    """The next step for the files of a failed batch: poison is not read again, others are tried alone."""

    pause: float = 0.0
    is_poison: bool = False


class FilesSuspected(Event, frozen=True):
    """A batch failed though the database answers others."""

    files: Sequence[str]
    reason: str
    next: NextTry


class WorkerDied(Event, frozen=True):
    """The worker process of a batch ended, was killed or failed."""

    files: Sequence[str]
    reason: str
    next: NextTry


# Outages ------------------------------------------------------------------------------------------


class Resource(Enum):
    """A thing that the daemon can't work without."""

    DATABASE = "the database"
    WORKERS = "a worker"
    BUCKET = "the bucket"
    BROKER = "Kafka"


class OutageBegan(Event, frozen=True):
    """A resource can't be reached; loading pauses."""

    resource: Resource
    reason: str


class OutageReasonChanged(Event, frozen=True):
    """A probe failed for a reason that this outage did not have before."""

    resource: Resource
    reason: str


class OutageEnded(Event, frozen=True):
    """The resource can be reached again."""

    resource: Resource
    seconds: float


# The watch folder ---------------------------------------------------------------------------------


class ObserverFailed(Event, frozen=True):
    """The system reports no new files; only scans find them."""

    folder: str
    reason: str


class ObserverWorks(Event, frozen=True):
    """The system reports new files again."""

    folder: str


class ObserverRestarted(Event, frozen=True):
    """The observer was replaced, because its thread had died or the folder is another one."""


class FolderListed(Event, frozen=True):
    """A scan has listed the watch folder; files is the number of those to load."""

    files: int


class FolderUnreadable(Event, frozen=True):
    """The watch folder can't be listed."""

    folder: str
    reason: str


class FolderReadable(Event, frozen=True):
    """The watch folder can be listed again."""

    folder: str


class ClaimPassedOver(Event, frozen=True):
    """A claimed file, or a stray one among the claims, can't be put back into the watch folder."""

    path: str
    reason: str


class EntriesIgnored(Event, frozen=True):
    """Files with other endings, or folders, lie in the watch folder; nobody will load them."""

    files: Sequence[str]


class QueueSilent(Event, frozen=True):
    """The queue of the bucket does not answer; only the listing finds new objects."""

    reason: str


class QueueAnswered(Event, frozen=True):
    """The queue of the bucket answers again."""


# The database -------------------------------------------------------------------------------------


class DatabaseSlow(Event, frozen=True):
    """The start of the embedded database takes seconds, and may take minutes."""

    reason: str


class DatabaseNew(Event, frozen=True):
    """The database holds no file yet: it was made now, or is new to this program."""

    place: str


class MarkerUnwritten(Event, frozen=True):
    """The marker, which names the database of the folder's files, can't be written."""

    folder: str
    reason: str


class CommitsUnsafe(Event, frozen=True):
    """The database runs with fsync=off."""


class WorkersFewer(Event, frozen=True):
    """The database has not enough connections for the wanted workers."""

    workers: int
    wanted: int
    connections: int


class PoolerFound(Event, frozen=True):
    """A connection pooler is between the daemon and the server."""


class LocksFew(Event, frozen=True):
    """The server's lock table is too small for a partition for each of wanted_days."""

    setting: int
    days: int
    wanted: int
    wanted_days: int


class PartitionMade(Event, frozen=True):
    """Rows of one day were moved from the "other" partition to their own."""

    table: str
    day: str


class RowsInOther(Event, frozen=True):
    """More rows are in a table's partition "other" than before: their days have no partition of their own."""

    table: str
    rows: int
    days: int


class DayDropped(Event, frozen=True):
    """A day was older than the retention, and is gone with its rows."""

    table: str
    day: str
    rows: int


class StraysDropped(Event, frozen=True):
    """Rows in the partition "other" were older than the retention, and are gone."""

    table: str
    rows: int


class HousekeepingFailed(Event, frozen=True):
    """Housekeeping was given up until its next round."""

    reason: str
