"""Fixtures of consuming."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from db.connection import Database
from tests.consume.consuming import Fleet
from tests.kafka import Broker


@pytest.fixture
def fleet(tmp_path: Path, database: Database, broker: Broker) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, database.url, broker)
    yield fleet
    fleet.stop()
