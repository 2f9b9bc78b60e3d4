"""Loads a folder or a bucket in one process, as one worker would, so that faults can be injected anywhere.

Like the daemon, it loads each large file by itself and the small ones together.
"""

import os
import signal
from collections.abc import Callable

import db.chunk
import processing.loader
import sources.bucket_object
import sources.local_file
import sources.s3_client
import watcher.scan
from db.connection import Database
from processing.batch import FileTask, Outcome
from processing.errors import DatabaseUnavailable, NotReady
from processing.loader import Loader
from service.bucket_discovery import Place
from service.loader_factory import BucketFactory, FolderFactory, LoaderFactory
from sources.claims import recover_claims
from sources.policy import BucketEnds, BucketPlace, OnLoaded

_MAX_SHARED_BYTES = 200_000

#: Tries of a batch, one right after the other; the daemon would pause between them.
_TRIES = 2

Report = Callable[[Outcome | Exception], None]


def get_ready() -> None:
    """Makes files of a few thousand rows count as large, with several chunks."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # as workers do
    db.chunk.CHUNK_ROWS = 1_000
    for module in (sources.local_file, sources.bucket_object, processing.loader):
        module.MAX_SHARED_BYTES = _MAX_SHARED_BYTES  # type: ignore[attr-defined]


def main(folder: str, url: str, report: Report) -> int:
    """Returns 0 if every file has its outcome; reports each outcome and each error."""
    failed = os.path.join(folder, "failed")
    loader = LoaderFactory(FolderFactory(folder, failed, "", OnLoaded.DELETE), 2**40, Database(url))()
    try:
        batches = _batches(folder)
    except OSError as error:  # the daemon would scan again later
        report(NotReady(error.strerror))
        return 1
    return _load_all(loader, batches, report)


def bucket(place: BucketPlace, endpoint: str, url: str, report: Report) -> int:
    """Does the same with all objects of a place in a bucket."""
    ends = BucketEnds(f"{place.prefix}failed/", "", OnLoaded.DELETE)
    loader = LoaderFactory(BucketFactory(place, ends, endpoint), 2**40, Database(url), is_remote=True)()
    listed = sources.s3_client.make_client(endpoint).list_objects_v2(Bucket=place.bucket, Prefix=place.prefix)
    wanted = Place.of(place, ends).wanted
    found = {entry["Key"]: entry["Size"] for entry in listed.get("Contents", []) if wanted(entry["Key"])}
    return _load_all(
        loader, _grouped({key[len(place.prefix) :]: size for key, size in found.items()}), report
    )


def _load_all(loader: Loader, batches: list[list[str]], report: Report) -> int:
    try:
        return max([_load(loader, batch, report) for batch in batches], default=0)
    except Exception as error:  # noqa: BLE001
        report(error)
        return 1


def _batches(folder: str) -> list[list[str]]:
    recover_claims(folder)
    return _grouped(
        {name: os.lstat(os.path.join(folder, name)).st_size for name in watcher.scan.waiting(folder)}
    )


def _grouped(sizes: dict[str, int]) -> list[list[str]]:
    large = [[name] for name, size in sizes.items() if size > _MAX_SHARED_BYTES]
    small = [name for name, size in sizes.items() if size <= _MAX_SHARED_BYTES]
    return [*large, *([small] if small else [])]


def _load(loader: Loader, names: list[str], report: Report) -> int:
    """Loads a batch, and retries it as the daemon would: the process must be able to go on after an error."""
    for _ in range(_TRIES):
        try:
            outcomes = loader.load([FileTask(name) for name in names])
        except DatabaseUnavailable as error:
            report(error)
            continue
        for outcome in outcomes:
            report(outcome)
        names = [outcome.name for outcome in outcomes if outcome.state in ("waiting", "retry_alone")]
        if not names:
            return 0
    return 1
