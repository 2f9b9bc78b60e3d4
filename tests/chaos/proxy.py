"""A TCP proxy that knows the boundaries of PostgreSQL's messages and can harm one of them."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum

TO_SERVER, TO_CLIENT = "to server", "to client"


class Harm(StrEnum):
    """The ways to harm a message; all but the mild ones end the connection."""

    CUT_BEFORE = "cut before"
    CUT_WITHIN = "cut within"
    CUT_AFTER = "cut after"
    SWALLOW = "swallow all answers, then cut"
    SILENCE = "silence"
    DELAY = "delay"
    SLICE = "slice"


_MILD = (Harm.DELAY, Harm.SLICE)
_DELAY = 0.1
_SWALLOWED_FOR = 0.1
_LONGEST_SLICED = 400


@dataclass(frozen=True)
class Fault:
    """A harm for the n-th message in a direction, counted from the moment of arming."""

    harm: Harm
    direction: str
    n: int

    def __str__(self) -> str:
        return f"{self.harm} message {self.n} {self.direction}"


class Proxy:
    """A proxy on its own port; each connection has one thread for each direction."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self.counts = {TO_SERVER: 0, TO_CLIENT: 0}
        self._links: list[_Link] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        #: Is asked about each message before it is passed on; one that may not pass cuts the connection.
        self.may_pass: Callable[[str, bytes], bool] = lambda direction, message: True

    @contextmanager
    def running(self) -> Iterator["Proxy"]:
        self._accepting.start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self.cut_all()

    def arm(self, fault: Fault | None) -> None:
        """Restarts the count, and harms the message when its turn comes."""
        with self._lock:
            self._fault = fault
            self.counts = {TO_SERVER: 0, TO_CLIENT: 0}

    @property
    def has_struck(self) -> bool:
        return self._fault is None

    def cut_all(self) -> None:
        for link in self._links:
            link.cut()
        self._links.clear()

    def passing(self, direction: str) -> Fault | None:
        """Counts a message; returns the fault if it is due, only once."""
        with self._lock:
            self.counts[direction] += 1
            fault = self._fault
            if fault and fault.direction == direction and fault.n == self.counts[direction]:
                self._fault = None
                return fault
        return None

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            self._links.append(_Link(self, client, server))


class _Link:
    """One client and its server."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self._swallows = False
        self._is_cut = threading.Event()
        for end in (client, server):  # before a thread may close one of them
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, sink, direction in ((client, server, TO_SERVER), (server, client, TO_CLIENT)):
            threading.Thread(target=self._pass, args=(source, sink, direction), daemon=True).start()

    def cut(self) -> None:
        """Resets both ends, as if the other host had gone."""
        self._is_cut.set()
        for end in (self._client, self._server):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)

    def _pass(self, source: socket.socket, sink: socket.socket, direction: str) -> None:
        with suppress(OSError), closing(source):
            for message in _messages(source, starts_typed=direction == TO_CLIENT):
                if not self._proxy.may_pass(direction, message):
                    break
                fault = self._proxy.passing(direction)
                if fault and fault.harm not in _MILD:
                    self._harm(fault.harm, message, sink)
                    return
                if not (self._swallows and direction == TO_CLIENT):
                    _send(sink, message, fault)
        self.cut()

    def _harm(self, harm: Harm, message: bytes, sink: socket.socket) -> None:
        if harm is Harm.SILENCE:
            self._is_cut.wait()  # from here on nobody reads, and nobody closes the connection
            return
        if harm is Harm.SWALLOW:
            self._swallows = True
        if harm is not Harm.CUT_BEFORE:
            sink.sendall(message[: len(message) // 2] if harm is Harm.CUT_WITHIN else message)
        if harm in (Harm.SWALLOW, Harm.CUT_AFTER):
            time.sleep(_SWALLOWED_FOR)  # so that the server has acted on it
        self.cut()


def _send(sink: socket.socket, message: bytes, fault: Fault | None) -> None:
    if fault and fault.harm is Harm.DELAY:
        time.sleep(_DELAY)
    if fault and fault.harm is Harm.SLICE:
        for byte in message[:_LONGEST_SLICED]:
            sink.sendall(bytes([byte]))
        message = message[_LONGEST_SLICED:]
    sink.sendall(message)


def _messages(source: socket.socket, *, starts_typed: bool) -> Iterator[bytes]:
    """Yields whole messages, which begin with type and length; the first one of a client has no type."""
    with source.makefile("rb") as stream:
        typed = starts_typed
        while head := stream.read(5 if typed else 4):
            (length,) = struct.unpack("!I", head[-4:])
            yield head + stream.read(length - 4)
            typed = True
