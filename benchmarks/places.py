"""Where the files of a benchmark arrive: a folder, or a bucket of a real S3 server."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import psutil

import watcher.scan
from benchmarks.files import Made
from tests.seaweed import Seaweed

#: Requests at a time while files are put into a bucket.
_THREADS = 8

PREFIX = "in/"


class Place(Protocol):
    """A place that daemons watch."""

    name: str

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a daemon that watches it."""

    def put(self, files: Sequence[Made]) -> None:
        """Puts the files there."""

    def is_empty(self) -> bool:
        """Returns whether all files are gone."""

    def server(self) -> psutil.Process | None:
        """Returns the process that serves the place, if it has one."""


class FolderPlace:
    """A folder on the disk of this machine."""

    name = "folder"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def settings(self) -> dict[str, str]:
        return {"WATCH_FOLDER": str(self._folder)}

    def put(self, files: Sequence[Made]) -> None:
        for made in files:
            hidden = self._folder / f".{made.path.name}.tmp"
            shutil.copy(made.path, hidden)
            hidden.rename(self._folder / made.path.name)

    def is_empty(self) -> bool:
        return not watcher.scan.waiting(str(self._folder))

    def server(self) -> None: ...


class BucketPlace:
    """A bucket of SeaweedFS."""

    name = "bucket"

    def __init__(self, seaweed: Seaweed) -> None:
        self._seaweed = seaweed
        self.bucket = f"bench-{secrets.token_hex(6)}"

    @property
    def settings(self) -> dict[str, str]:
        return {"WATCH_FOLDER": f"s3://{self.bucket}/{PREFIX}", **self._seaweed.environment}

    def put(self, files: Sequence[Made]) -> None:
        def put(made: Made) -> None:
            key = PREFIX + made.path.name
            self._seaweed.client.put_object(Bucket=self.bucket, Key=key, Body=made.path.read_bytes())

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(put, files))

    def is_empty(self) -> bool:
        answer = self._seaweed.client.list_objects_v2(Bucket=self.bucket, Prefix=PREFIX, MaxKeys=5)
        return all(found["Key"].endswith("/.database") for found in answer.get("Contents", []))

    def server(self) -> psutil.Process:
        return psutil.Process(self._seaweed.pid)


@contextmanager
def folder_place() -> Iterator[FolderPlace]:
    """Yields an empty folder."""
    with tempfile.TemporaryDirectory(prefix="benchmark-place-") as folder:
        yield FolderPlace(Path(folder))


@contextmanager
def bucket_place(seaweed: Seaweed) -> Iterator[BucketPlace]:
    """Yields an empty bucket, and deletes it at the end."""
    place = BucketPlace(seaweed)
    seaweed.client.create_bucket(Bucket=place.bucket)
    try:
        yield place
    finally:
        seaweed.client.delete_bucket(Bucket=place.bucket)
