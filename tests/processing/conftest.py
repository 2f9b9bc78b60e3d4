"""Fixtures: drop folders with a loader and a database."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import db.chunk
import db.conflicts
import db.connection
import db.hourly_counts
import db.writer
import processing.document
import processing.fast_path
import processing.loader
import processing.small_file
from db import schema
from db.connection import Database
from tests.processing.loading import Drops
from tests.support import Server


@pytest.fixture(scope="session")
def shared_database(server: Server) -> Iterator[Database]:
    """Emptied for each test, which is quicker than a new one."""
    with server.database() as database:
        with closing(database.connect()) as connection:
            schema.apply(connection)
        yield database


@pytest.fixture
def drops(tmp_path: Path, shared_database: Database) -> Iterator[Drops]:
    drops = Drops(tmp_path, shared_database)
    drops.clear()
    yield drops
    drops.sink.close()


@pytest.fixture
def own_loader(tmp_path: Path, database: Database) -> Iterator[Drops]:
    """For a test that changes more of its database than the rows."""
    drops = Drops(tmp_path, database)
    yield drops
    drops.sink.close()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and texts so small that a handful of rows takes every path."""
    monkeypatch.setattr(db.chunk, "CHUNK_ROWS", 4)
    monkeypatch.setattr(db.conflicts, "_MANY_ROWS", 2)
    monkeypatch.setattr(db.conflicts, "_SPARSE", 0.5)
    monkeypatch.setattr(db.hourly_counts, "_MOST", 2)
    monkeypatch.setattr(processing.fast_path, "WINDOW_BYTES", 300)
    monkeypatch.setattr(processing.document, "CHUNK_BYTES", 300)
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", 1000)
    monkeypatch.setattr(processing.small_file, "MAX_SHARED_BYTES", 1000)
