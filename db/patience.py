"""Bounded waits for the database: they end at a deadline, or when nobody wants the answer any more.

libpq waits in C, where Python handles no signal, and the cancel() of psycopg2 even keeps the lock of the
interpreter while it waits. Therefore a thread waits for libpq, and its caller waits for the thread.
"""

import ctypes
import os
import select
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from threading import Thread
from typing import TypeVar

import psycopg2
from psycopg2 import _psycopg
from psycopg2.extensions import POLL_OK, POLL_READ
from psycopg2.extensions import connection as Connection

from processing.errors import DatabaseUnavailable

#: A short question that is not answered within this time is taken for one that never is.
ANSWER_SECONDS = 10.0

#: How long a cancel request, and what it cancels, may take before the connection is cut.
_CANCEL_SECONDS = 2.0

#: How often a wait looks whether it is still wanted.
_LOOK_SECONDS = 0.1

#: The length of what libpq may write about a cancel request that failed.
_ERROR_BYTES = 256

T = TypeVar("T")

_libpq = ctypes.CDLL(_psycopg.__file__)  # with libpq, be it linked or bundled; calls release the lock
_libpq.PQgetCancel.restype = ctypes.c_void_p
_libpq.PQgetCancel.argtypes = [ctypes.c_void_p]
_libpq.PQcancel.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
_libpq.PQfreeCancel.argtypes = [ctypes.c_void_p]


class WaitCancelled(DatabaseUnavailable):
    """The wait was given up: its answer is not wanted any more."""


def within(
    seconds: float | None,
    function: Callable[[], T],
    cut_off: Callable[[], None],
    is_cancelled: Callable[[], bool] = lambda: False,
) -> T:
    """Returns what the function returns, or raises what it raises; it runs in a thread.

    Raises DatabaseUnavailable after the deadline, and WaitCancelled as soon as is_cancelled() is true: then
    cut_off() is to end the function, whose thread is left behind in any case.
    """
    result: Future[T] = Future()
    deadline = None if seconds is None else time.monotonic() + seconds
    thread = Thread(target=_run, args=(function, result), name="patience", daemon=True)
    try:
        try:
            thread.start()
        except RuntimeError as error:
            raise DatabaseUnavailable(f"the system has no thread to wait for it: {error}") from None
        while not wait([result], _LOOK_SECONDS).done:
            if is_cancelled():
                raise WaitCancelled("the wait for the database was cancelled")
            if deadline is not None and time.monotonic() >= deadline:
                raise DatabaseUnavailable(f"it does not answer for {seconds:g} s")
    except BaseException:
        cut_off()
        raise
    return result.result()


def ask(
    connection: Connection,
    question: Callable[[], T],
    is_cancelled: Callable[[], bool] = lambda: False,
    seconds: float | None = ANSWER_SECONDS,
) -> T:
    """Returns the answer to a question over the connection, which is cut if that takes too long."""
    return within(seconds, question, lambda: cut(connection), is_cancelled)


def cut(connection: Connection) -> None:
    """Ends whatever waits for the connection, in any thread, as if the server had gone."""
    with suppress(psycopg2.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as ours:
        ours.shutdown(socket.SHUT_RDWR)


def cancel(connection: Connection) -> None:
    """Asks the server to cancel the statement of the connection; cuts it if nobody takes the request."""
    with suppress(psycopg2.Error):
        CancelRequest(connection).send(_CANCEL_SECONDS, lambda: cut(connection))


class CancelRequest:
    """A cancel request that other threads may send, also while the connection is being closed.

    To be made by the thread that the connection belongs to: libpq copies what it needs.
    """

    def __init__(self, connection: Connection) -> None:
        self._request = _libpq.PQgetCancel(connection.pgconn_ptr)

    def send(self, seconds: float, if_not_taken: Callable[[], None] = lambda: None) -> None:
        """Asks the server to cancel what it does for the connection; a server may not answer in time."""
        with suppress(DatabaseUnavailable):
            within(seconds, self._send, if_not_taken)

    def _send(self) -> None:
        _libpq.PQcancel(self._request, ctypes.create_string_buffer(_ERROR_BYTES), _ERROR_BYTES)

    def __del__(self) -> None:
        _libpq.PQfreeCancel(self._request)


def wait_for_answer(connection: Connection) -> None:
    """Waits as psycopg2's wait_select, but Ctrl+C cancels the statement even where nobody answers.

    To be given to set_wait_callback, which excludes COPY.
    """
    deadline: float | None = None
    while True:
        try:
            state = connection.poll()
            if state == POLL_OK:
                return
            ready = ([connection], []) if state == POLL_READ else ([], [connection])
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not any(select.select(*ready, [], left)) and deadline is not None:
                cut(connection)
        except KeyboardInterrupt:
            deadline = time.monotonic() + _CANCEL_SECONDS
            cancel(connection)


def _run(function: Callable[[], T], result: "Future[T]") -> None:
    try:
        result.set_result(function())
    except BaseException as error:  # noqa: BLE001  # whoever waits for the result has to know
        result.set_exception(error)
