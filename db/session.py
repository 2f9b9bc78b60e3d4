"""The settings that our statements rely on: they hold in every transaction, whoever else has the session.

SET lasts as long as the session, and a pooler in transaction mode gives each transaction another session:
there SET is lost, and changes the transactions of others. Therefore the settings go by SET LOCAL, in the same
message as the first statement of a transaction.
"""

from collections.abc import Iterator
from typing import Any

from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from psycopg2.sql import Composable

#: They override the defaults of server and role. A file is deleted once COMMIT has returned, so
#: synchronous_commit must be on. The large file that a timeout ends would be loaded again for ever.
_SETTINGS = {
    "synchronous_commit": "on",
    "statement_timeout": "0",
    "lock_timeout": "'60s'",
    "idle_in_transaction_session_timeout": "'10min'",
    "timezone": "'UTC'",
    "datestyle": "ISO, YMD",
    "standard_conforming_strings": "on",
    # A server that stops at once sends a warning with the row of the statement; psycopg2 may print it.
    "client_min_messages": "error",
    "search_path": "mobileye_data, public",
    # Tables that were never analysed are taken for large ones: compiling took 0.2 s, the statement 1.5 ms.
    "jit": "off",
}

#: Unless another isolation was asked for.
_READ_COMMITTED = "SET LOCAL transaction_isolation = 'read committed';"

#: Settings of the time between transactions, for a session that is ours alone.
_SESSION = {
    "default_transaction_isolation": "'read committed'",
    # Without these, the server would keep our locks for two hours after a link died (the system's default).
    "tcp_user_timeout": "'10s'",
    "tcp_keepalives_idle": "4",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}

#: Settings that came with a version of the server.
_TRANSACTION_TIMEOUT = 17_00_00
_SINCE_14 = 14_00_00

#: A server amid a long statement does not notice that we have died, and keeps our locks until it is over.
#: Servers on other systems than Linux may refuse the setting.
_NOTICE_DEATH = """
    SELECT set_config('client_connection_check_interval', '10s', false)
    WHERE version() ~* 'linux'
"""


class Session(Connection):
    """A connection whose transactions have our settings, the statements of autocommit among them."""

    is_pooled = False
    settings = ""

    def begin(self) -> None:
        """Finds out whether a pooler is in between, and if not, also keeps the settings between transactions.

        To be called once, with autocommit.
        """
        self.cursor_factory = _SessionCursor
        self.settings = "".join(f"SET LOCAL {name} = {value};" for name, value in self._own_settings())
        with self.cursor() as cursor:
            # A pooler answers with a process number of its own making: it takes the cancel requests itself.
            cursor.execute("SELECT pg_backend_pid()")
            ((pid,),) = cursor.fetchall()
            self.is_pooled = pid != self.info.backend_pid
            if not self.is_pooled:
                statements = [f"SET {name} = {value}" for name, value in self._kept_settings()]
                if self.server_version >= _SINCE_14:
                    statements.append(_NOTICE_DEATH)
                cursor.execute(";".join(statements))

    def _own_settings(self) -> Iterator[tuple[str, str]]:
        yield from _SETTINGS.items()
        if self.server_version >= _TRANSACTION_TIMEOUT:
            yield "transaction_timeout", "0"

    def _kept_settings(self) -> Iterator[tuple[str, str]]:
        yield from self._own_settings()
        yield from _SESSION.items()
        if self.server_version >= _SINCE_14:
            yield "idle_session_timeout", "0"


def is_pooled(connection: Connection) -> bool:
    """Returns whether a pooler is between us and the server."""
    return isinstance(connection, Session) and connection.is_pooled


def make_read_only(connection: Connection) -> None:
    """Lets no later transaction change anything, unless it says so itself."""
    assert isinstance(connection, Session)
    connection.settings += "SET LOCAL transaction_read_only = on;"
    if not connection.is_pooled:  # also for a transaction that begins within a text of several statements
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = on")


def limit_statements(connection: Connection, seconds: float) -> None:
    """Lets the server end each later statement that takes longer."""
    assert isinstance(connection, Session)
    connection.settings += f"SET LOCAL statement_timeout = '{round(1000 * seconds)}ms';"


class _SessionCursor(Cursor):
    """A cursor that sends the settings before the first statement of a transaction."""

    connection: Session

    def execute(self, query: str | bytes | Composable, vars: Any = None) -> None:
        # An empty statement is for psycopg2 to refuse.
        if query and self.connection.get_transaction_status() == TRANSACTION_STATUS_IDLE:
            if self.name is None:
                query = self._after_settings(query)
            else:  # a named cursor is declared by one statement
                with self.connection.cursor() as cursor:
                    cursor.execute("SELECT")
        super().execute(query, vars)

    def _after_settings(self, query: str | bytes | Composable) -> str | bytes:
        settings = self.connection.settings
        if self.connection.isolation_level is None:
            settings = _READ_COMMITTED + settings
        if isinstance(query, bytes):
            return settings.encode() + query
        return settings + (query.as_string(self) if isinstance(query, Composable) else query)
