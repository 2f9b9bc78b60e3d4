"""Several daemons on one place and one database: what they load, how fast, and what bounds them."""

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from io import StringIO
from typing import Any

import psutil
import psycopg2
from msgspec import Struct

from benchmarks import ours
from benchmarks.contenders import count_made
from benchmarks.files import COLUMNS, TABLES, Made
from benchmarks.places import Place
from benchmarks.server import execute
from db.claims import SLOTS
from tests.support import frozen

#: Files of each daemon before the clock starts: every worker is connected then, and has imported all.
WARM_UP = 60

RESCAN_SECONDS = 5.0

#: The daemons' sessions, each with what it does at this moment, and whether it is a worker's.
_SESSIONS = """
    SELECT state, coalesce(wait_event_type || ': ' || wait_event, ''), query NOT LIKE '%pg_%lock%'
    FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'mobileye-data'
"""

_SLOTS = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND objid < {} GROUP BY pid"
)

#: Bytes of the write-ahead log until now, and of the tables with their indexes.
_LOG = "SELECT pg_current_wal_insert_lsn() - '0/0'"
_STORED = """
    SELECT sum(pg_total_relation_size(c.oid))
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname = 'mobileye_data' AND relkind = 'r'
"""

#: The daemon is to send or to read on, and the server waits for that.
_FOR_DAEMON = "Client: ClientRead"


class Load(Struct, frozen=True):
    """One run: its files, its time, the processor's time of each program, and what the sessions did."""

    files: int
    rows: int
    differences: int
    seconds: float
    processor: dict[str, float]
    connections: int
    waits: dict[str, float]
    log_bytes: int  # of the write-ahead log
    stored_bytes: int  # of tables and indexes

    @property
    def share_of_cores(self) -> float:
        """Returns how much of the machine's processors was used."""
        return sum(self.processor.values()) / (self.seconds * (psutil.cpu_count() or 1))


class Fleet:
    """Daemons that run. While files are put they are stopped, so that all find the same backlog."""

    def __init__(self, place: Place, url: str, daemons: Sequence[ours.Daemon]) -> None:
        self._place = place
        self._url = url
        self._daemons = daemons

    def load(self, warm_up: Sequence[Made], files: Sequence[Made]) -> Load:
        """Loads some files, so that all is warm, then times the others."""
        self._place.put(warm_up)
        with closing(psycopg2.connect(self._url)) as connection:
            connection.autocommit = True
            self._until_loaded(connection, len(warm_up))
            with frozen(*(daemon.process.pid for daemon in self._daemons)):
                begun = time.monotonic()
                self._place.put(files)
                if self._place.server() is not None:  # each daemon is to list the bucket at once
                    time.sleep(max(0.0, RESCAN_SECONDS - (time.monotonic() - begun)))
            before, log, stored = self._processor_seconds(), self._ask(_LOG), self._ask(_STORED)
            started = time.perf_counter()
            with Sessions(self._url) as sessions:
                self._until_loaded(connection, len(warm_up) + len(files))
                ours.wait_for(self._place.is_empty)
            seconds = time.perf_counter() - started
        used = self._processor_seconds()
        return Load(
            len(files),
            count_made(list(files)),
            count_differences(self._url, [*warm_up, *files]),
            seconds,
            {name: used[name] - before[name] for name in used},
            sessions.most,
            sessions.waits(),
            self._ask(_LOG) - log,
            self._ask(_STORED) - stored,
        )

    def until_divided(self) -> None:
        """Waits until each daemon has its share of the bucket."""
        share = math.ceil(SLOTS / len(self._daemons))

        def is_divided() -> bool:
            slots = [count for (count,) in execute(self._url, _SLOTS.format(SLOTS))]
            return sum(slots) == SLOTS and len(slots) == len(self._daemons) and max(slots) <= share

        ours.wait_for(is_divided)

    def _until_loaded(self, connection: psycopg2.extensions.connection, count: int) -> None:
        with connection.cursor() as cursor:
            while True:
                cursor.execute("SELECT count(*) FROM mobileye_data.ingested_files")
                if cursor.fetchone() == (count,):
                    return
                time.sleep(0.02)

    def _ask(self, statement: str) -> int:
        ((answer,),) = execute(self._url, statement)
        return int(answer)

    def _processor_seconds(self) -> dict[str, float]:
        """Returns the seconds of the processor that each program has used until now."""
        with closing(psycopg2.connect(self._url)) as connection:
            server = psutil.Process(connection.info.backend_pid).ppid()
        place = self._place.server()
        return {
            "daemons": sum(used(daemon.process.pid) for daemon in self._daemons),
            "PostgreSQL": used(server),
            "S3 server": used(place.pid) if place else 0.0,
        }


class Sessions:
    """The daemons' sessions, looked at every 20 ms by a thread."""

    def __init__(self, url: str) -> None:
        self.most = 0
        self._url = url
        self._counts: Counter[str] = Counter()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Sessions":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def waits(self) -> dict[str, float]:
        """Returns the share of each event in the time of the workers' sessions, the largest first."""
        total = self._counts.total() or 1
        return {event: count / total for event, count in self._counts.most_common()}

    def _watch(self) -> None:
        with closing(psycopg2.connect(self._url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            while not self._is_over.wait(0.02):
                cursor.execute(_SESSIONS)
                found = cursor.fetchall()
                self.most = max(self.most, len(found))
                self._counts.update(_named(state, event) for state, event, is_worker in found if is_worker)


@contextmanager
def running_fleet(place: Place, url: str, count: int, **settings: object) -> Iterator[Fleet]:
    """Yields so many daemons, each with its share of the place."""
    with ExitStack() as stack:
        chosen: dict[str, Any] = {"RESCAN_SECONDS": RESCAN_SECONDS, **place.settings, **settings}
        daemons = [stack.enter_context(ours.running(url, **chosen)) for _ in range(count)]
        fleet = Fleet(place, url, daemons)
        if place.server() is not None:
            fleet.until_divided()
        yield fleet


def count_differences(url: str, files: Sequence[Made]) -> int:
    """Counts rows that are stored but are in no file, or not as often, and the other way round."""
    count = 0
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SET work_mem = '256MB'; SET search_path = mobileye_data")
        for kind, table in TABLES.items():
            text = "".join(made.copy_text() for made in files if made.kind == kind)
            columns = COLUMNS[kind].removesuffix(", file_id")
            cursor.execute(f"CREATE TEMPORARY TABLE made AS TABLE {table} WITH NO DATA")
            cursor.copy_expert(f"COPY made ({COLUMNS[kind]}) FROM STDIN", StringIO(text))
            cursor.execute(
                f"""
                WITH made AS (SELECT {columns} FROM made), stored AS (SELECT {columns} FROM {table})
                SELECT (SELECT count(*) FROM (TABLE made EXCEPT ALL TABLE stored) AS lost)
                     + (SELECT count(*) FROM (TABLE stored EXCEPT ALL TABLE made) AS doubled)
                """
            )
            count += (cursor.fetchone() or (0,))[0]
            cursor.execute("DROP TABLE made")
    return count


def _named(state: str, event: str) -> str:
    if state == "idle":
        return "no transaction"
    if event == _FOR_DAEMON:
        return "waits for the daemon"
    return event or "at work"


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def used(pid: int) -> float:
    """Returns the processor's seconds of a process and its descendants."""
    total = 0.0
    for process in _family(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total
