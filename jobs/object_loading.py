"""Loads single objects of the settings' bucket, with what is kept from one invocation to the next."""

from collections.abc import Sequence

from config import Settings
from db import ledger_name, schema
from db.connection import Database
from db.session import Session
from db.sink import PostgresSink
from jobs.deadline import Deadline
from processing.batch import FileTask, Outcome
from processing.errors import Misconfigured
from processing.printable import printable
from service import marker
from service.bucket_discovery import Place
from service.bucket_marker import BucketStore
from service.loader_factory import LoaderFactory
from sources.bucket import BucketSource
from sources.notifications import Arrival
from sources.s3_client import make_client


class ObjectLoading:
    """The loader, with its client and its connection, and the deadline that all of them keep to."""

    def __init__(self, settings: Settings) -> None:
        """Raises Misconfigured; connects to nothing yet."""
        if settings.bucket is None:
            raise Misconfigured("WATCH_FOLDER should be s3://bucket/prefix: AWS Lambda loads from a bucket")
        if settings.outside_database is None:
            raise Misconfigured("DATABASE_URL is not set: AWS Lambda has no database of its own")
        self.deadline = Deadline()
        self._place, ends = settings.bucket, settings.bucket_ends
        self._is_wanted = Place.of(self._place, ends).wanted
        client = make_client(settings.s3_endpoint_url)
        self._marker = BucketStore(client, self._place)
        database = Database(settings.outside_database)
        self._sink = PostgresSink(
            database, max_future_hours=settings.max_future_hours, seconds_left=self.deadline.left
        )
        factory = LoaderFactory.of(
            settings, lambda beat: BucketSource(client, self._place, ends, beat), database
        )
        self._loader = factory.make(self._sink, self.deadline.check)

    def prepare(self) -> None:
        """Makes sure of a connection to a database that is the right one, with tables of this version.

        Raises DatabaseUnavailable, SourceUnavailable, Misconfigured or OutOfTime.
        """
        self.deadline.check()
        self._sink.prepare(self._check)

    def wants(self, arrival: Arrival) -> bool:
        """Returns whether an object is one that is to be loaded."""
        at = self._place
        is_here = arrival.bucket == at.bucket and arrival.key.startswith(at.prefix)
        return is_here and self._is_wanted(arrival.key)

    def load(self, arrivals: Sequence[Arrival]) -> list[Outcome]:
        """Loads objects in one transaction; raises what Loader.load() raises, and OutOfTime."""
        self.deadline.check()
        names = [arrival.key.removeprefix(self._place.prefix) for arrival in arrivals]
        return self._loader.load([FileTask(name) for name in names])

    def interrupt(self, seconds: float) -> None:
        """Ends what the database is waited for; to be called by another thread, until load() has ended."""
        self._sink.cancel(seconds)

    def _check(self, session: Session) -> None:
        schema.check(session)
        found = self._marker.read()
        if found is not None and found.ledger != ledger_name.find(session):
            info = session.info
            instead = f"the database {info.dbname} on {info.host}:{info.port}"
            raise marker.refusal(printable(str(self._place)), found, instead)
