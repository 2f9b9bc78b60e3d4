"""Serves metrics and health by HTTP in threads of its own; what a client does can't hold up the daemon."""

import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Thread
from typing import Any

from msgspec import Struct

from config import Address
from processing.errors import Misconfigured

#: Clients that are served at once; others are turned away.
_MOST_CLIENTS = 16

#: How long a client may be silent, and how long it may take in all.
_SILENT_SECONDS = 5.0
_CLIENT_SECONDS = 30.0

#: How often the server looks whether it is to stop, and whether a client takes too long.
_LOOK_SECONDS = 0.25

_TEXT = "text/plain; charset=utf-8"


class Answer(Struct, frozen=True):
    """The answer to a request."""

    code: int
    body: bytes
    content_type: str = _TEXT


#: Answers a request; takes its header Accept.
Responder = Callable[[str], Answer]


class MetricsServer:
    """A server of a few pages, which can only be read."""

    def __init__(
        self, address: Address, pages: Mapping[str, Responder], on_error: Callable[[Exception], None]
    ) -> None:
        """Starts nothing. on_error is told of faults that are no client's, in any thread."""
        self._address = address
        self._pages = pages
        self._on_error = on_error
        self._server: _Server | None = None

    def start(self) -> Address:
        """Returns the address that it listens at.

        Raises Misconfigured if nobody can listen there, and OSError if the system has no thread.
        """
        try:
            found = socket.getaddrinfo(*self._address, type=socket.SOCK_STREAM)
            server = _Server(found[0][0], found[0][4], self._pages, self._on_error)
        except OSError as error:
            why = error.strerror or error
            raise Misconfigured(
                f"METRICS_ADDRESS is {self._address}: nobody can listen there: {why}"
            ) from None
        try:
            Thread(target=self._serve, args=(server,), name="metrics", daemon=True).start()
        except RuntimeError as error:
            server.server_close()
            raise OSError(f"the system has no thread for the metrics: {error}") from None
        self._server = server
        host, port = server.server_address[:2]
        return Address(str(host), int(port))

    def stop(self) -> None:
        """Ends the server; clients that are still served are left to themselves."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _serve(self, server: "_Server") -> None:
        try:
            server.serve_forever(_LOOK_SECONDS)
        except Exception as error:  # noqa: BLE001  # the daemon goes on without
            self._on_error(error)


class _Server(ThreadingTCPServer):
    """A server with a thread for each client, and a bound for their number and their time."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = _MOST_CLIENTS

    def __init__(
        self,
        family: socket.AddressFamily,
        place: Any,
        pages: Mapping[str, Responder],
        on_error: Callable[[Exception], None],
    ) -> None:
        self.address_family = family
        self.pages = pages
        self._on_error = on_error
        self._clients: dict[Any, float] = {}  # by their sockets, since when
        super().__init__(place, _Handler)

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError:
            time.sleep(_LOOK_SECONDS)  # no descriptor is free: the client waits, and the loop must not spin
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._clients) >= _MOST_CLIENTS:
            self.shutdown_request(request)
            return
        self._clients[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._clients.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cuts off clients that take too long, however busy they look."""
        for request, since in list(self._clients.items()):
            if time.monotonic() - since > _CLIENT_SECONDS:
                with suppress(OSError):  # its thread closes it: here its descriptor might become another's
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Reports what is not the fault of a client, who may go at any time."""
        error = sys.exc_info()[1]
        if isinstance(error, Exception) and not isinstance(error, OSError):
            self._on_error(error)


class _Handler(BaseHTTPRequestHandler):
    """A request for one of the pages, by GET or HEAD."""

    server: _Server
    server_version = "mobileye"
    sys_version = ""
    timeout = _SILENT_SECONDS

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def log_message(self, *_: object) -> None:
        """Writes nothing: clients come every few seconds."""

    def _answer(self, *, has_body: bool) -> None:
        pages = self.server.pages
        respond = pages.get(self.path.partition("?")[0])
        accepted = self.headers.get("Accept", "")
        answer = respond(accepted) if respond else Answer(404, f"here are {', '.join(pages)}\n".encode())
        self.send_response(answer.code)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if has_body:
            self.wfile.write(answer.body)
