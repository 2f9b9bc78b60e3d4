"""Divides a bucket among the daemons of one database, by advisory locks: no daemon gets what another has.

The objects are divided by their names into slots. Each daemon holds as many slots as are its share, each as a
lock of one connection, with which they end: nothing has to be cleaned up. Safety rests on the ledger alone:
two daemons that have the same slot for a moment read an object twice, but never load it twice.
"""

import math
import random
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import datetime

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from db.connection import Database, translate_errors
from db.session import Session, is_pooled
from processing.errors import DatabaseUnavailable

SLOTS = 64

#: A shared lock of each daemon, by which they count each other.
_PRESENCE = SLOTS

#: How long a slot that goes to another daemon is kept without new batches: those in flight end meanwhile.
_LEAVE_SECONDS = 5.0

#: The server ends the connection of a daemon that is frozen, or whose link is cut, after this time. One that
#: is only slow for so long loses its slots, too, and takes some again: that costs requests.
_SILENCE = "20s"
_IDLE_SESSION_TIMEOUT = 14_00_00

_LOCKS = """
    SELECT objid::bigint, pid = pg_backend_pid()
    FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint = %s
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

_DAEMONS = """
    SELECT a.backend_start
    FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid::bigint = %s
      AND l.objid::bigint = %s
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Claims:
    """The slots of this daemon. To be renewed every few seconds, by one thread at a time."""

    def __init__(self, connect_to: Callable[[], Database], place: str) -> None:
        """Connects to nothing yet."""
        self._connect_to = connect_to
        self._room = _room(place)
        self._session: Session | None = None
        self._held: set[int] = set()
        self._leaving: dict[int, float] = {}  # since when
        self._ours: frozenset[int] = frozenset()

    def is_ours(self, name: str) -> bool:
        """Returns whether this daemon is to load the object of that name, as of the last renewal."""
        return zlib.crc32(name.encode()) % SLOTS in self._ours

    @property
    def ours(self) -> frozenset[int]:
        """The slots of this daemon, as of the last renewal."""
        return self._ours

    def renew(self) -> None:
        """Takes slots that are free and part of the share, gives up others; raises DatabaseUnavailable."""
        try:
            with translate_errors():
                session = self._session = self._session or self._connect()
                if session.is_pooled:  # such a lock would be anybody's
                    self._ours = frozenset(range(SLOTS))
                    return
                with session.cursor() as cursor:
                    self._divide(cursor)
        except DatabaseUnavailable:
            self.close()
            raise
        self._ours = frozenset(self._held - self._leaving.keys())

    def close(self) -> None:
        """Gives all slots back."""
        session, self._session = self._session, None
        self._held.clear()
        self._leaving.clear()
        self._ours = frozenset()
        if session is not None:
            with suppress(Exception), closing(session):
                pass

    def _connect(self) -> Session:
        session = self._connect_to().connect(autocommit=True)
        if session.is_pooled:
            return session
        with session.cursor() as cursor:
            if session.server_version >= _IDLE_SESSION_TIMEOUT:
                cursor.execute(f"SET idle_session_timeout = '{_SILENCE}'")
            cursor.execute("SELECT pg_advisory_lock_shared(%s, %s)", (self._room, _PRESENCE))
        return session

    def _divide(self, cursor: Cursor) -> None:
        cursor.execute(_LOCKS, (self._room,))
        locks = cursor.fetchall()
        daemons = sum(slot == _PRESENCE for slot, _ in locks)
        self._held = {slot for slot, is_mine in locks if is_mine and slot != _PRESENCE}
        share = math.ceil(SLOTS / max(1, daemons))
        free = list(set(range(SLOTS)) - {slot for slot, _ in locks})
        random.shuffle(free)
        for slot in free[: max(0, share - len(self._held))]:
            cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", (self._room, slot))
            if cursor.fetchall() == [(True,)]:
                self._held.add(slot)
        self._leave(cursor, share)

    def _leave(self, cursor: Cursor, share: int) -> None:
        """Gives up what is beyond the share, a while after it got its last batch."""
        now = time.monotonic()
        for slot in sorted(self._held - self._leaving.keys())[share:]:
            self._leaving[slot] = now
        for slot, since in list(self._leaving.items()):
            if slot not in self._held:
                del self._leaving[slot]
            elif len(self._held) <= share:
                del self._leaving[slot]  # another daemon has ended: it is needed again
            elif now - since >= _LEAVE_SECONDS:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", (self._room, slot))
                self._held.discard(slot)
                del self._leaving[slot]


def daemons(connection: Connection, place: str) -> Sequence[datetime | None] | None:
    """Returns since when each daemon of a place is there, as far as one may know; None if nobody can know."""
    with translate_errors(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_is_in_recovery()")
        if is_pooled(connection) or cursor.fetchall() == [(True,)]:
            return None
        cursor.execute(_DAEMONS, (_room(place), _PRESENCE))
        return [since for (since,) in cursor.fetchall()]


def _room(place: str) -> int:
    return zlib.crc32(place.encode()) & 0x7FFFFFFF
