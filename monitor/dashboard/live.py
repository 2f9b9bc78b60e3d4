"""The present, gathered again and again for all pages together, and never so often that loading feels it."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from threading import Thread
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace
from psycopg2.extensions import connection as Connection

from config import Settings
from db import present, queries
from db.claims import daemons
from db.present import Failure, OpenReject, Server, Sessions
from db.queries import FileEntry
from db.stream import Stored, read_stored
from monitor.dashboard.history import STEP, History, Step
from processing.errors import DatabaseUnavailable, Misconfigured, SourceUnavailable
from service import published
from service.database import has_database
from service.drop_folder import Backlog, Looker
from service.kept_client import KeptClient
from service.presence import Watched, count_workers, watched
from service.published import Published
from service.reading import Reading
from service.topic_state import TopicLooker, TopicState

#: Seconds between two looks while somebody watches, and while nobody does.
_PAUSE, _IDLE_PAUSE = 2.0, float(STEP)

#: A look that takes long, at a million files for example, is followed by a pause so many times as long.
_RESTS, _LONGEST_PAUSE = 30, 60.0

#: Seconds between two looks at what seldom changes, or takes long to count.
_SELDOM = 5.0

_SHOWN = 20

#: Accepted gaps of topics that are shown.
_GAPS = 5

#: A file that has waited for longer is opened, to learn why.
_OPENED_AFTER_SECONDS = 20.0

T = TypeVar("T")


class Ledger(Struct, frozen=True):
    """The present as the database knows it."""

    failures: list[Failure]
    rejects: list[OpenReject]
    reject_counts: dict[str, int]
    last_files: list[FileEntry]
    sessions: Sessions
    server: Server
    rows_without_a_day: dict[str, int]


class Present(Struct, frozen=True):
    """The facts that the page shows; without an answer of the database, trouble is the reason."""

    at: datetime
    folder: Backlog
    daemon: Watched
    workers: int | None
    waiting: list[tuple[datetime, int, int]]
    steps: list[Step] = []
    ledger: Ledger | None = None
    topics: TopicState | None = None
    published: Published | None = None
    trouble: str = ""


class Live:
    """Gathers the present until it is cancelled; pages read what was gathered last."""

    def __init__(self, settings: Settings, reading: Reading, client: KeptClient) -> None:
        """Gathers nothing."""
        self._settings = settings
        self._client = client
        self._looker = Looker(settings, client)
        self._reading = reading
        self._history = History()
        self._waiting: list[tuple[datetime, int, int]] = []
        self._ledger: Ledger | None = None
        self._ledger_at = float("-inf")
        self._topic_looker = TopicLooker(settings)
        self._stored = Stored([], [])
        self._topics: TopicState | None = None
        self._published: Published | None = None
        self._wanted_at = float("-inf")
        self.present: Present | None = None

    def want(self) -> None:
        """Notes that somebody watches."""
        self._wanted_at = time.monotonic()

    async def run(self) -> None:
        self._published = await in_thread(lambda: published.begin(self._settings, self._client))
        await asyncio.gather(self._run(), self._run_topics(), self._run_published())

    async def _run_topics(self) -> None:
        """Asks Kafka by itself: its answer may take long, and the pages wait for nothing."""
        while True:
            with suppress(Exception):  # the next look may succeed
                self._topics = await in_thread(lambda: self._topic_looker.look(self._stored))
            await asyncio.sleep(_SELDOM)

    async def _run_published(self) -> None:
        """Reads the ledger of a publisher, which takes long if it is long."""
        while True:
            began = time.monotonic()
            with suppress(Exception):  # the next look may succeed
                self._published = await in_thread(lambda: published.find(self._settings, self._client))
            await asyncio.sleep(max(_SELDOM, _RESTS * (time.monotonic() - began)))

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                self.present = await in_thread(self._gather)
            except Exception as error:  # noqa: BLE001  # the pages show it, and the next look may succeed
                if self.present is not None:
                    self.present = replace(self.present, at=datetime.now(UTC), trouble=repr(error))
            await self._rest(took=time.monotonic() - began)

    async def _rest(self, took: float) -> None:
        """Waits for the next look; not as long once somebody watches."""
        began = time.monotonic()
        while (now := time.monotonic()) - began < _LONGEST_PAUSE:
            is_watched = now - self._wanted_at < _IDLE_PAUSE
            if now - began >= max(_PAUSE if is_watched else _IDLE_PAUSE, _RESTS * took):
                return
            await asyncio.sleep(_PAUSE / 10)

    def _gather(self) -> Present:
        now, folder, daemon = datetime.now(UTC), self._looker.look(5, _OPENED_AFTER_SECONDS), Watched(None)
        if not folder.error:
            if self._settings.bucket is None:
                with suppress(OSError):  # it is gone by now
                    daemon = watched(str(self._settings.folder))
            self._waiting.append((now, folder.files, folder.bytes))
            self._waiting = [sample for sample in self._waiting if (now - sample[0]).total_seconds() < 3600]
        workers = count_workers(daemon.processes) if daemon.processes else None
        found = Present(now, folder, daemon, workers, list(self._waiting), published=self._published)
        if found.published is not None and not has_database(self._settings):
            return found
        try:
            if self._settings.bucket is not None:
                found = replace(found, daemon=self._reading.ask(self._daemons_of_bucket))
            steps, ledger = self._reading.ask(self._read)
        except (DatabaseUnavailable, SourceUnavailable, Misconfigured) as error:
            self._ledger_at = float("-inf")
            return replace(found, trouble=str(error))
        return replace(found, steps=steps, ledger=ledger, topics=self._topics)

    def _daemons_of_bucket(self, connection: Connection) -> Watched:
        return Watched.of_bucket(daemons(connection, str(self._settings.bucket)))

    def _read(self, connection: Connection) -> tuple[list[Step], Ledger]:
        steps = self._history.read(connection)
        if self._ledger is None or time.monotonic() - self._ledger_at > _SELDOM:
            self._ledger, self._ledger_at = _read_ledger(connection), time.monotonic()
            self._stored = read_stored(connection, _GAPS)
        return steps, self._ledger


def _read_ledger(connection: Connection) -> Ledger:
    return Ledger(
        present.open_failures(connection, _SHOWN),
        present.open_rejects(connection, _SHOWN),
        present.open_reject_counts(connection),
        queries.last_files(connection, _SHOWN // 2),
        present.sessions(connection),
        present.server(connection),
        present.rows_without_a_day(connection),
    )


async def in_thread(function: Callable[[], T]) -> T:
    """Runs a function in a thread that does not keep the program from ending."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(function())
        except BaseException as error:  # noqa: BLE001  # whoever awaits it has to know
            result.set_exception(error)

    Thread(target=run, name="dashboard", daemon=True).start()
    return await asyncio.wrap_future(result)
