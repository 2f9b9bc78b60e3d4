"""Connections to PostgreSQL with deadlines, and the one place where its errors become ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from psycopg2.extensions import parse_dsn

from processing.errors import (
    DatabaseUnavailable,
    LockTimeout,
    Misconfigured,
    Refused,
    Setback,
    TransactionFailed,
    TryAgain,
)

#: What a connection string may override. A server that does not answer is given up after 3 s; a dead
#: link is noticed in about 10 s: by tcp_user_timeout where data is in flight, by the keepalives where
#: an answer is awaited; each alone misses the other case (measured).
_DEFAULTS: dict[str, str] = {
    "connect_timeout": "3",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "4",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "target_session_attrs": "read-write",
    "application_name": "mobileye-data",
    "client_encoding": "UTF8",
}

#: What our statements rely on, whatever the server's or the role's defaults are. A dropped file is
#: deleted because COMMIT returned: synchronous_commit must be on.
_SESSION = {
    "timezone": "'UTC'",
    "datestyle": "ISO, YMD",
    "synchronous_commit": "on",
    "default_transaction_isolation": "'read committed'",
    "standard_conforming_strings": "on",
    # A server that ends at once warns its clients, with the row in hand; psycopg2 may print that as it is.
    "client_min_messages": "error",
    "search_path": "mobileye_data, public",
    "idle_in_transaction_session_timeout": "'10min'",
    "lock_timeout": "'60s'",
    # The server's end of a dead link: else it would keep our locks for two hours, as systems have it.
    "tcp_user_timeout": "'10s'",
    "tcp_keepalives_idle": "4",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}

#: How a server says no to a connection for a reason that only a person can remove. A refused
#: connection has no SQLSTATE in psycopg2, only libpq's text.
_REFUSALS = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "is not permitted to log in",
    "permission denied for database",
    "invalid connection option",
    "invalid port number",
    "invalid integer value",
    "invalid sslmode value",
    "certificate verify failed",
    "does not match host name",
    "server does not support SSL",
)


#: Characters that are kept of what the server says.
MAX_MESSAGE = 500

#: A URL whose user, password and host are where they seem to be: an "@" or "/" of a password is encoded.
_CLEAR_URL = re.compile(r"postgres(?:ql)?://(?:[^@/]*@)?[^@?]*(?:\?.*)?")


class RowRefused(Refused):
    """The database does not take these rows as they are, with SQLSTATE and message."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(sqlstate, message)
        self.sqlstate = sqlstate

    def __str__(self) -> str:
        return str(self.args[1])


class KeyExists(RowRefused):
    """A row with one of these keys is there already."""


@dataclass(frozen=True)
class Database:
    """Where the database is: a libpq connection string or URL; what it does not say is libpq's default."""

    url: str

    def connect(self, *, autocommit: bool = False) -> Connection:
        """A new connection; raises DatabaseUnavailable or Misconfigured."""
        try:
            connection: Connection = psycopg2.connect(**{**_DEFAULTS, **_parameters(self.url)})
        except psycopg2.Error as error:
            raise _refused(error) from None
        with translate_errors():
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("; ".join(f"SET {name} = {value}" for name, value in _SESSION.items()))
            connection.autocommit = autocommit
        return connection


def _parameters(url: str) -> dict[str, Any]:
    """What the connection string says; libpq's own complaints about one may quote the password."""
    if url.startswith(("postgres://", "postgresql://")) and not _CLEAR_URL.fullmatch(url):
        raise Misconfigured('the database URL has an "@" or "/" too many: in a password they are %40 and %2F')
    try:
        parameters: dict[str, Any] = parse_dsn(url)
    except psycopg2.Error:
        raise Misconfigured("the database's connection string can't be read") from None
    return parameters


@contextmanager
def translate_errors() -> Iterator[None]:
    """psycopg2's errors become ours; the SQLSTATE decides, or its absence."""
    try:
        yield
    except psycopg2.Error as error:
        raise _translate(error) from None


@contextmanager
def savepoint(connection: Connection) -> Iterator[Cursor]:
    """What is refused within is undone, and the transaction goes on."""
    with translate_errors(), connection.cursor() as cursor:
        cursor.execute("SAVEPOINT rows")
        try:
            with translate_errors():
                yield cursor
        except RowRefused:
            cursor.execute("ROLLBACK TO SAVEPOINT rows")
            raise
        cursor.execute("RELEASE SAVEPOINT rows")


def _translate(error: psycopg2.Error) -> Exception:
    message, code = _first_line(error), error.pgcode
    if code is not None and _names_row(error):
        return KeyExists(code, message) if code == "23505" else RowRefused(code, message)
    if code is not None and code[:2] in _FIXED_BY_A_PERSON:
        return Misconfigured(f"the database refuses: {message}")
    return _no_fault_of_a_row(code, message)


def _no_fault_of_a_row(code: str | None, message: str) -> Exception:
    """By what is known of it; psycopg2's classes tell nothing: 25006 of a standby is an InternalError.

    Without a SQLSTATE the connection was lost.
    """
    if code is None or code in _EXHAUSTED:
        return Setback(message)
    if code in _SERVER or code[:2] in _SERVER_CLASSES:
        return DatabaseUnavailable(message)
    if code == "55P03":
        return LockTimeout(message)
    return TryAgain(message) if code in _LOST_RACES else TransactionFailed(message)


#: Classes of SQLSTATE that say what is wrong with a row, or with what a trigger did about it. 0A is what a
#: table does not take in this way, because of a rule, say; 54 is a row that exceeds a limit.
ROW_CLASSES = ("09", "0A", "20", "21", "22", "23", "27", "2F", "38", "39", "44", "54", "P0")

_FIXED_BY_A_PERSON = {"28", "3D", "3F", "42"}
_LOST_RACES = {"40001", "40P01"}

#: Disk, memory and temp_file_limit: a large file may exhaust them where small ones do not.
_EXHAUSTED = {"53100", "53200", "53400"}

#: The server's condition, whatever is sent: the connection (08), resources (53), the system (58); and the end
#: of a session or of all by somebody's hand, a standby, a session that was idle for too long.
_SERVER_CLASSES = {"08", "53", "58"}
_SERVER = {"57P01", "57P02", "57P03", "57P05", "25006", "25P03", "40003"}


def _names_row(error: psycopg2.Error) -> bool:
    """RAISE in a trigger takes any SQLSTATE: then the server's function that runs it tells."""
    return str(error.pgcode)[:2] in ROW_CLASSES or error.diag.source_function == "exec_stmt_raise"


def _refused(error: psycopg2.Error) -> Exception:
    """A name with several addresses gets a line for each: any of them may be the one that tells."""
    for line in str(error).splitlines():
        if any(refusal in line for refusal in _REFUSALS):
            return Misconfigured(f"the database refuses the connection: {line.strip()}")
    return DatabaseUnavailable(_first_line(error))


def _first_line(error: psycopg2.Error) -> str:
    """What the server says; the lines behind it may quote rows, and what a trigger says may be long."""
    text = str(error).strip()
    lines = [line for line in text.splitlines() if line.strip()]
    if error.pgcode is not None:
        return lines[0].strip()[:MAX_MESSAGE] if lines else f"it gives no reason but SQLSTATE {error.pgcode}"
    return lines[0].strip() if lines else "it gives no reason; libpq does not if it gets no socket"
