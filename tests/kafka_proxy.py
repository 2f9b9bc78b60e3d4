"""A proxy before a broker, which reads the requests that pass: it can keep the answer to one of them away."""

import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.kafka import Broker, find_jars
from tests.support import free_port

#: The numbers of requests: messages come, a transaction ends, the broker ends it in the partitions.
PRODUCE, END_TRANSACTION, WRITE_MARKERS = 0, 26, 27


class KafkaProxy:
    """Passes everything on, until it is told to cut."""

    def __init__(self, port: int) -> None:
        """Listens for a broker that listens, or will listen, at another port of this machine."""
        self.port = free_port()
        self._broker_port = port
        self._cut_at: int | None = None
        self._spared = 0
        self._passes = True
        self._is_away = threading.Event()
        self._answered = threading.Event()
        self._has_cut = threading.Event()
        self._connections: list[socket.socket] = []
        #: Is asked about each request, and about each answer (is_answer) with the number of its request; what
        #: may not pass ends its connection.
        self.may_pass: Callable[[int, bool], bool] = lambda number, is_answer: True
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_at(self, request: int, *, passes: bool, spared: int = 0) -> threading.Event:
        """Cuts all connections at the next request of this number, before its answer; passes it on or not.

        So many of these requests are spared before. From then on nobody is connected until come_back().
        Returns what is set when that has happened.
        """
        self._passes = passes
        self._has_cut.clear()
        self._answered.clear()
        self._cut_at, self._spared = request, spared
        return self._has_cut

    def come_back(self) -> None:
        self._is_away.clear()

    def close(self) -> None:
        self._server.close()
        self._cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                if self._is_away.is_set():
                    client.close()
                    continue
                try:
                    broker = socket.create_connection(("127.0.0.1", self._broker_port), 5)
                except OSError:
                    client.close()
                    continue
                self._connections += [client, broker]
                asked: dict[bytes, int] = {}
                for passing, ends in (
                    (self._pass_requests, (client, broker)),
                    (self._pass_answers, (broker, client)),
                ):
                    threading.Thread(target=passing, args=(*ends, asked), daemon=True).start()

    def _pass_requests(self, client: socket.socket, broker: socket.socket, asked: dict[bytes, int]) -> None:
        with suppress(OSError, struct.error):
            for message in _messages(client):
                (number,) = struct.unpack(">h", message[4:6])
                asked[message[8:12]] = number
                if number == self._cut_at and self._spared:
                    self._spared -= 1
                elif number == self._cut_at:
                    self._cut_at = None
                    self._is_away.set()
                    if self._passes:
                        broker.sendall(message)
                        self._answered.wait(10)  # the broker has done it, and nobody hears
                    self._cut()
                    self._has_cut.set()
                    return
                if not self.may_pass(number, False):
                    break
                broker.sendall(message)
        _end(client, broker)

    def _pass_answers(self, broker: socket.socket, client: socket.socket, asked: dict[bytes, int]) -> None:
        with suppress(OSError, struct.error):
            for message in _messages(broker):
                if self._is_away.is_set():
                    self._answered.set()
                    break
                if not self.may_pass(asked.pop(message[4:8], -1), True):
                    break
                client.sendall(message)
        _end(client, broker)

    def _cut(self) -> None:
        connections, self._connections = self._connections, []
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def _messages(source: socket.socket) -> Iterator[bytes]:
    """Yields requests or answers, each with its length before it."""
    with source.makefile("rb") as stream:
        while head := stream.read(4):
            (length,) = struct.unpack(">i", head)
            yield head + stream.read(length)


def _end(*connections: socket.socket) -> None:
    for connection in connections:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


class Disturbed(NamedTuple):
    """A broker behind a proxy."""

    broker: Broker
    proxy: KafkaProxy


@contextmanager
def disturbed_broker() -> Iterator[Disturbed]:
    """Yields a broker whose clients come by a proxy; it soon aborts transactions that have timed out."""
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder), find_jars())
        broker.create()
        proxy = KafkaProxy(broker.port)
        with open(Path(folder) / "server.properties", "a") as settings:
            settings.write(f"advertised.listeners=PLAINTEXT://127.0.0.1:{proxy.port}\n")
            settings.write("transaction.abort.timed.out.transaction.cleanup.interval.ms=200\n")
        try:
            broker.start()
            yield Disturbed(broker, proxy)
        finally:
            proxy.close()
            broker.stop()
