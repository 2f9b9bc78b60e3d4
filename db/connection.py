"""Connections to PostgreSQL with deadlines, and the translation of its errors into ours."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from psycopg2.extensions import parse_dsn

from db.patience import ask, cut, within
from db.session import Session
from processing.errors import (
    DatabaseUnavailable,
    LockTimeout,
    Misconfigured,
    Refused,
    Setback,
    TransactionFailed,
    TryAgain,
)

#: Defaults that a connection string may override. Connecting fails after 3 s without an answer. A dead link
#: is noticed in about 10 s: by tcp_user_timeout while data is being sent, by the keepalives while waiting
#: for an answer; each alone misses the other case (measured).
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

#: Texts of refused connections that only a person can fix. psycopg2 gives no SQLSTATE for a refused
#: connection, only libpq's text.
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


#: Characters that are kept of a server's message.
MAX_MESSAGE = 500

#: A URL without an unencoded "@" or "/" in its password, which would move the beginning of the host.
_CLEAR_URL = re.compile(r"postgres(?:ql)?://(?:[^@/]*@)?[^@?]*(?:\?.*)?")


class RowRefused(Refused):
    """The database refuses the rows, with SQLSTATE and message."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(sqlstate, message)
        self.sqlstate = sqlstate

    def __str__(self) -> str:
        return str(self.args[1])


class KeyExists(RowRefused):
    """A row with one of the keys is stored already."""


class Cancelled(TransactionFailed):
    """The statement was ended, by a time limit or by a person."""


@dataclass(frozen=True)
class Database:
    """The address of a database: a libpq connection string or URL; libpq has defaults for missing parts."""

    url: str

    def connect(
        self,
        *,
        autocommit: bool = False,
        may_be_read_only: bool = False,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Session:
        """Returns a new connection; raises DatabaseUnavailable or Misconfigured, and WaitCancelled."""
        more = {"target_session_attrs": "any"} if may_be_read_only else {}
        parameters = {**_DEFAULTS, **more, **_parameters(self.url)}
        made: list[Session] = []

        def cut_off() -> None:
            for session in made:
                cut(session)

        return within(None, lambda: _connect(parameters, made, autocommit), cut_off, is_cancelled)


def _connect(parameters: dict[str, Any], made: list[Session], autocommit: bool) -> Session:
    """Connects; libpq has a deadline of its own for each address of the host."""
    try:
        session: Session = psycopg2.connect(**parameters, connection_factory=Session)
    except psycopg2.Error as error:
        raise _refused(error) from None
    made.append(session)
    with translate_errors():
        session.autocommit = True
        ask(session, session.begin)
        session.autocommit = autocommit
    return session


def _parameters(url: str) -> dict[str, Any]:
    """Parses the connection string, without libpq's own error messages: they may quote the password."""
    if url.startswith(("postgres://", "postgresql://")) and not _CLEAR_URL.fullmatch(url):
        raise Misconfigured('the database URL has an "@" or "/" too many: in a password they are %40 and %2F')
    try:
        parameters: dict[str, Any] = parse_dsn(url)
    except psycopg2.Error:
        raise Misconfigured("the database's connection string can't be read") from None
    return parameters


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translates psycopg2's errors into ours, by their SQLSTATE or its absence."""
    try:
        yield
    except psycopg2.Error as error:
        raise _translate(error) from None


@contextmanager
def savepoint(connection: Connection) -> Iterator[Cursor]:
    """Yields a cursor; if a row is refused, undoes its statements and keeps the transaction usable."""
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
    """Returns our error for one that is no row's fault, by its SQLSTATE; without one the connection was lost.

    psycopg2's classes do not help: the 25006 of a standby, for example, is an InternalError.
    """
    if code is None or code in _EXHAUSTED:
        return Setback(message)
    if code in _SERVER or code[:2] in _SERVER_CLASSES:
        return DatabaseUnavailable(message)
    if code == "55P03":
        return LockTimeout(message)
    if code == "57014":
        return Cancelled(message)
    return TryAgain(message) if code in _LOST_RACES else TransactionFailed(message)


#: Classes of SQLSTATE for errors of a row, or of a trigger that handled it. 0A: the table does not support
#: the statement, for example because of a rule; 54: the row exceeds a limit.
ROW_CLASSES = ("09", "0A", "20", "21", "22", "23", "27", "2F", "38", "39", "44", "54", "P0")

_FIXED_BY_A_PERSON = {"28", "3D", "3F", "42"}
_LOST_RACES = {"40001", "40P01"}

#: Disk, memory or temp_file_limit is exhausted: a large file may cause this where small ones do not.
_EXHAUSTED = {"53100", "53200", "53400"}

#: Errors of the server, independent of the statement: connection (08), resources (53), system (58); and a
#: session ended by an administrator, a server that stops or starts, a standby, a session idle for too long.
_SERVER_CLASSES = {"08", "53", "58"}
_SERVER = {"57P01", "57P02", "57P03", "57P05", "25006", "25P03", "40003"}


def _names_row(error: psycopg2.Error) -> bool:
    """Returns whether a row is the cause; RAISE in a trigger, which counts, may use any SQLSTATE."""
    return str(error.pgcode)[:2] in ROW_CLASSES or error.diag.source_function == "exec_stmt_raise"


def _refused(error: psycopg2.Error) -> Exception:
    """Returns our error for a refused connection; libpq writes one line for each address of the host."""
    for line in str(error).splitlines():
        if any(refusal in line for refusal in _REFUSALS):
            return Misconfigured(f"the database refuses the connection: {line.strip()}")
    return DatabaseUnavailable(_first_line(error))


def _first_line(error: psycopg2.Error) -> str:
    """Returns the first line, cut if long: later lines may quote rows, and a trigger may write any text."""
    text = str(error).strip()
    lines = [line for line in text.splitlines() if line.strip()]
    if error.pgcode is not None:
        return lines[0].strip()[:MAX_MESSAGE] if lines else f"it gives no reason but SQLSTATE {error.pgcode}"
    return lines[0].strip() if lines else "it gives no reason; libpq does not if it gets no socket"
