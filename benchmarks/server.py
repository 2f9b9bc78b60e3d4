"""Runs the server of all contenders, with the settings of the embedded one and a database for each run."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2

from benchmarks.files import FIRST_DAY, TABLES
from db import schema
from db.connection import Database
from db.embedded.keeper import SETTINGS
from db.embedded.server import find_binaries

#: Number of days whose partitions exist before a run starts, for every contender.
DAYS = 3


class Server:
    """One PostgreSQL on loopback, in a temporary folder."""

    def __init__(self, port: int) -> None:
        self._port = port

    def url(self, name: str = "postgres") -> str:
        return f"postgresql://bench:bench@127.0.0.1:{self._port}/{name}"

    def version(self) -> str:
        return f"PostgreSQL {execute(self.url(), 'SHOW server_version')[0][0]}"

    @contextmanager
    def empty_database(self, tablespace: str = "pg_default") -> Iterator[str]:
        """Yields the URL of a new database."""
        name = f"run_{secrets.token_hex(6)}"
        execute(self.url(), f"CREATE DATABASE {name} TABLESPACE {tablespace}")
        try:
            yield self.url(name)
        finally:
            execute(self.url(), f"DROP DATABASE {name} WITH (FORCE)")

    def kept_database(self, name: str, fill: Callable[[str], None]) -> str:
        """Returns the URL of the database of that name, which is filled first if it is not there yet."""
        if not execute(self.url(), f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
            execute(self.url(), f"DROP DATABASE IF EXISTS {name}_unfinished")
            execute(self.url(), f"CREATE DATABASE {name}_unfinished")
            fill(self.url(f"{name}_unfinished"))
            execute(self.url(), f"ALTER DATABASE {name}_unfinished RENAME TO {name}")
        return self.url(name)

    @contextmanager
    def database(self, tablespace: str = "pg_default") -> Iterator[str]:
        """Yields the URL of a new database with our tables and the partitions of the days to come."""
        with self.empty_database(tablespace) as url:
            with closing(Database(url).connect()) as connection:
                schema.apply(connection)
            make_partitions(url)
            yield url


@contextmanager
def small_disk(server: Server, tablespace: str, megabytes: int) -> Iterator[Path]:
    """Yields a disk in memory that is mounted for a tablespace; only root can do that."""
    with tempfile.TemporaryDirectory(prefix="benchmark-disk-") as folder:
        Path(folder).chmod(0o755)
        disk = Path(folder) / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", disk], check=True)
        try:
            shutil.chown(disk, "nobody")
            execute(server.url(), f"CREATE TABLESPACE {tablespace} LOCATION '{disk}'")
            yield disk
            execute(server.url(), f"DROP TABLESPACE {tablespace}")
        finally:
            subprocess.run(["umount", "-l", disk], check=True)


@contextmanager
def running_server(kept: Path | None = None) -> Iterator[Server]:
    """Starts a server and stops it at the end; removes it then, unless its folder is to be kept."""
    folder = kept or Path(tempfile.mkdtemp(prefix="benchmark-"))
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    binaries = find_binaries()
    owner: dict[str, Any] = {"cwd": "/"}
    if os.geteuid() == 0:
        owner |= {"user": "nobody", "group": "nogroup", "extra_groups": []}
    data = str(folder / "data")
    if not (folder / "data").exists():
        (folder / "data").mkdir()
        if os.geteuid() == 0:
            shutil.chown(folder / "data", "nobody")
        options = ["-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C"]
        subprocess.run([binaries / "initdb", *options], check=True, capture_output=True, **owner)
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    chosen = {**SETTINGS, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": str(port)}
    flags = [word for name, value in chosen.items() for word in ("-c", f"{name}={value}")]
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(
            [binaries / "postgres", "-D", data, *flags], stdout=log, stderr=log, **owner
        )
    try:
        server = Server(port)
        _wait_for(server)
        yield server
    finally:
        process.send_signal(2)
        process.wait()
        if kept is None:
            shutil.rmtree(folder)


def make_partitions(url: str) -> None:
    """Makes the partitions of the first days, then a checkpoint, so that no run pays for writing them out."""
    for table in TABLES.values():
        for day in range(DAYS):
            date = FIRST_DAY.date() + timedelta(days=day)
            execute(url, f"SELECT mobileye_data.add_partition('{table}', '{date}')")
    execute(url, "CHECKPOINT")


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Runs a statement outside of a transaction; returns its rows."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def count_rows(url: str) -> int:
    """Counts the stored detections and reports."""
    counts = [execute(url, f"SELECT count(*) FROM mobileye_data.{table}")[0][0] for table in TABLES.values()]
    return sum(counts)


def _wait_for(server: Server) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            execute(server.url(), "SELECT 1")
            return
        except psycopg2.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
