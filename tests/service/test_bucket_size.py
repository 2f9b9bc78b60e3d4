"""The daemon on buckets that are too large to be held: whatever is in front, and however much there is.

pytest -m slow tests/service/test_bucket_size.py -s prints the figures of the full size.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import psutil
import pytest

from db.connection import Database
from service import drop_bucket
from service.bucket_discovery import Place
from sources.policy import BucketPlace
from sources.s3_client import make_client
from tests.chaos.background import beside
from tests.made_up_bucket import MadeUpBucket, made_up_bucket
from tests.seaweed import credentials, use_credentials
from tests.support import Daemon, is_worker, report, statuses, until

#: What the daemon may take, in bytes: its own process, and each of its workers.
MOST_MEMORY = 250 * 1024 * 1024

COUNT = "SELECT sum(rows_inserted) FROM mobileye_data.ingested_files"


def content(key: str) -> bytes:
    """Rows of its own for each object but those that are stuck, which are duplicates of one: to save time."""
    return statuses(report(vehicle="stuck" if key.startswith("in/a/") else key))


class Memory:
    """The largest that any process of a daemon was."""

    def __init__(self, daemon: Daemon) -> None:
        assert daemon.process is not None
        self._main = psutil.Process(daemon.process.pid)
        self.of_main = self.of_workers = 0

    def measure(self, stop: Event) -> None:
        while not stop.wait(0.1):
            try:
                self.of_main = max(self.of_main, self._main.memory_info().rss)
                for child in self._main.children(recursive=True):
                    if is_worker(child):
                        self.of_workers = max(self.of_workers, child.memory_info().rss)
            except psutil.NoSuchProcess:
                pass


def test_of_a_large_bucket_a_part_is_counted_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    use_credentials(monkeypatch)
    keys = [f"in/vehicles_status_{n:04}.json" for n in range(1_500)]
    with made_up_bucket(keys, content) as bucket:
        client, place = make_client(bucket.url), Place(BucketPlace("made-up", "in/"), [])
        part = drop_bucket.count(client, place, 5, most_pages=1)
        whole = drop_bucket.count(client, place, 5)
    assert (part.files, len(part.oldest), part.has_more) == (1_000, 5, True)
    assert (whole.files, len(whole.oldest), whole.has_more) == (1_500, 5, False)


@contextmanager
def daemon_on(bucket: MadeUpBucket, folder: Path, url: str) -> Iterator[Daemon]:
    settings = {"WATCH_FOLDER": "s3://made-up/in", "S3_ENDPOINT_URL": bucket.url, **credentials()}
    daemon = Daemon(folder, url, WORKERS=2, **settings)
    daemon.start(wait=False)
    until(lambda: " watching " in daemon.log(), 120, "the daemon watches")
    try:
        yield daemon
    finally:
        daemon.stop()
    assert "Traceback" not in daemon.log()


@pytest.mark.parametrize(
    "loaded", [1_000, pytest.param(20_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_a11_of_200_000_objects_no_more_names_are_held_than_are_of_use(
    tmp_path: Path, database: Database, loaded: int
) -> None:
    keys = [f"in/vehicles_status_{n:06}.json" for n in range(200_000)]
    with made_up_bucket(keys, content) as bucket, daemon_on(bucket, tmp_path, database.url) as daemon:
        started = time.monotonic()
        memory = Memory(daemon)
        with beside(memory.measure):
            until(lambda: daemon.rows(COUNT)[0][0], 60)
            first = time.monotonic() - started
            until(lambda: (daemon.rows(COUNT)[0][0] or 0) >= loaded, 3000)
        seconds = time.monotonic() - started
    figures = f"first row {first:.1f} s, {loaded:,} in {seconds:.0f} s"
    sizes = f"daemon {memory.of_main >> 20} MB, worker {memory.of_workers >> 20} MB"
    sys.stdout.write(f"\nA11: {figures}, {sizes}\n")
    assert max(memory.of_main, memory.of_workers) < MOST_MEMORY
    assert max(bucket.gets.values()) == 1
    assert bucket.pages * 1_000 <= 15_000 + loaded


@pytest.mark.parametrize(
    "stuck", [600, pytest.param(60_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_a10_objects_that_cannot_be_deleted_never_keep_new_ones_waiting(
    tmp_path: Path, database: Database, stuck: int
) -> None:
    keys = [f"in/a/vehicles_status_{n:06}.json" for n in range(stuck)]
    new = [f"in/z/vehicles_status_{n}.json" for n in range(10)]
    with (
        made_up_bucket(keys, content, lambda key: key.startswith("in/z/")) as bucket,
        daemon_on(bucket, tmp_path, database.url) as daemon,
    ):
        memory = Memory(daemon)
        with beside(memory.measure):
            until(lambda: len(bucket.refused) == stuck, 3000)
            before, passes = memory.of_main, bucket.passes
            bucket.add(new)
            until(lambda: bucket.left() == stuck, 300)
            behind = bucket.passes - passes
    figures = f"behind {stuck:,} objects loaded within {behind} rescans, {bucket.gets.total():,} GETs"
    sizes = f"daemon {before >> 20} MB before, {memory.of_main >> 20} MB in the end"
    sys.stdout.write(f"\nA10: {figures}, {sizes}\n")
    assert behind <= 2
    assert memory.of_main < MOST_MEMORY and memory.of_workers < MOST_MEMORY
