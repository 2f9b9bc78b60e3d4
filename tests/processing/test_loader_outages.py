"""A connection that is cut, or a database that refuses, loses and doubles nothing."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg2
import pytest

import processing.document
import processing.fast_path
import processing.loader
from db.connection import Database
from processing.batch import FileTask
from processing.errors import DatabaseUnavailable, Misconfigured
from tests.processing.loading import HISTORY, Drops, states
from tests.support import Server, report, statuses


class Proxy:
    """Between a client and the server; loses the first COMMIT of a connection, or the answer to it."""

    def __init__(self, port: int, lose: str) -> None:
        self._server_port = port
        self._lose = lose
        self.lost = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                for step in (self._forward, self._answer):
                    thread = threading.Thread(target=step, args=(client, server))
                    self._threads.append(thread)
                    thread.start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with closing(client), closing(server), suppress(OSError):
            while data := client.recv(65536):
                if data[5:] == b"COMMIT\0" and not self.lost:
                    self.lost += 1
                    if self._lose == "answer":
                        server.sendall(data)
                        continue  # _answer cuts
                    break
                server.sendall(data)
            cut(client, server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if self.lost == 1 and self._lose == "answer" and b"C\0\0\0\x0bCOMMIT\0" in data:
                    self.lost += 1
                    break
                client.sendall(data)
            cut(client, server)


def cut(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def loading_through(proxy: Proxy, folder: Path, database: Database) -> Iterator[Drops]:
    name = psycopg2.extensions.parse_dsn(database.url)
    drops = Drops(
        folder, Database(psycopg2.extensions.make_dsn(**{**name, "port": proxy.port, "sslmode": "disable"}))
    )
    drops.database = database
    try:
        yield drops
    finally:
        drops.sink.close()
        proxy.close()


@pytest.mark.parametrize(("lose", "then"), [("answer", "duplicate"), ("COMMIT", "loaded")])
@pytest.mark.parametrize("shared", [1, 10_000_000], ids=["large", "small"])
def test_when_the_commit_or_its_answer_is_lost_the_rows_are_there_once(
    server: Server,
    tmp_path: Path,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    lose: str,
    then: str,
    shared: int,
) -> None:
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", shared)
    with loading_through(Proxy(server.port, lose), tmp_path, database) as drops:
        with pytest.raises(DatabaseUnavailable):
            drops.load(vehicles_status_1=statuses(report(1), report(2)))
        assert drops.left() == ["vehicles_status_1.json"]
        assert states(drops.processor.load([FileTask("vehicles_status_1.json")])) == [then]
        assert drops.count(HISTORY) == 2
        assert drops.left() == []


@pytest.mark.parametrize("wrong", [b"hello", statuses(report())], ids=["bad", "good"])
def test_without_its_database_all_files_stay_as_they_were(own_loader: Drops, wrong: bytes) -> None:
    own_loader.rows("DROP TABLE ingested_files CASCADE")
    with pytest.raises(Misconfigured):
        own_loader.load(vehicles_status_1=wrong, vehicles_status_2=b"[]")
    assert own_loader.left() == ["vehicles_status_1.json", "vehicles_status_2.json"]
    assert not own_loader.failed.exists()


def test_a_file_waits_alone_if_its_failure_cannot_be_recorded(own_loader: Drops) -> None:
    own_loader.rows("ALTER TABLE ingested_files ADD CHECK (state <> 'failed')")
    outcomes = own_loader.load(vehicles_status_1=statuses(report()), vehicles_status_2=b"[]")
    assert states(outcomes) == ["loaded", "waiting"]
    assert own_loader.left() == ["vehicles_status_2.json"]
    own_loader.rows("ALTER TABLE ingested_files DROP CONSTRAINT ingested_files_state_check1")
    assert states(own_loader.processor.load([FileTask("vehicles_status_2.json")])) == ["failed"]
    assert own_loader.count(HISTORY) == 1
