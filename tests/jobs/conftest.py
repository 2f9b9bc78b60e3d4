"""Fixtures: the zip, built and unpacked once for all tests, and the function of each test in the emulator."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from db.connection import Database
from tests.jobs.emulator import Functions, Platform, unpacked
from tests.jobs.support import Bucket
from tests.seaweed import Seaweed


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    with unpacked() as platform:
        yield platform


@pytest.fixture
def bucket(seaweed: Seaweed) -> Bucket:
    return Bucket(seaweed)


@pytest.fixture
def functions(tmp_path: Path, platform: Platform, bucket: Bucket, database: Database) -> Iterator[Functions]:
    functions = Functions(tmp_path, platform, {**bucket.settings, "DATABASE_URL": database.url})
    yield functions
    functions.stop()
