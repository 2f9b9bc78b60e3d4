"""Serves the pages on one address until the program is asked to stop."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import uvicorn
from starlette.types import ASGIApp

from config import Address
from processing.errors import Misconfigured

#: Pages that are still open are given up after this time: their browsers connect again.
_STOP_SECONDS = 1


def bind(address: Address, *, has_token: bool) -> socket.socket:
    """Takes the address; raises Misconfigured if it is in use, or open to other machines without a token."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise Misconfigured(f"the address {address}: there is no host of this name") from None
    if not has_token and not ip_address(str(place[0]).partition("%")[0]).is_loopback:
        raise Misconfigured(
            f"the address {address} is open to other machines: set DASHBOARD_TOKEN, or use 127.0.0.1"
        )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen()
    except OSError as error:
        listener.close()
        raise Misconfigured(f"the address {address} can't be used: {error.strerror or error}") from None
    return listener


def serve(app: ASGIApp, listener: socket.socket, is_stopped: Callable[[], bool]) -> None:
    """Serves until the program is asked to stop."""
    config = uvicorn.Config(
        app,
        lifespan="on",
        log_level="warning",
        access_log=False,  # an address may hold a token
        ws="wsproto",
        server_header=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    _Server(config, is_stopped).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Leaves the signals to the program."""

    def __init__(self, config: uvicorn.Config, is_stopped: Callable[[], bool]) -> None:
        super().__init__(config)
        self._is_stopped = is_stopped

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        return self._is_stopped() or await super().on_tick(counter)
