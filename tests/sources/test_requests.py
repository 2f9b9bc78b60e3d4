"""Requests to a bucket: of a batch many are under way at the same time, and each object takes two."""

from pathlib import Path
from threading import Barrier

import pytest

from db.connection import Database
from tests.s3_proxy import S3Proxy
from tests.seaweed import Seaweed
from tests.service.test_bucket import BucketDaemon, status_of

#: So many requests of one worker have to be under way before one of them is answered.
_AT_ONCE = 8


@pytest.mark.parametrize("kind", ["GET", "DELETE"])
def test_the_requests_of_a_batch_are_under_way_at_once_and_are_two_an_object(
    tmp_path: Path, database: Database, seaweed: Seaweed, proxy: S3Proxy, kind: str
) -> None:
    daemon = BucketDaemon(tmp_path, database.url, seaweed, S3_ENDPOINT_URL=proxy.url, WORKERS=1)
    all_there = Barrier(_AT_ONCE, timeout=60)

    def wait_for_all(request: str, path: str) -> None:
        if request == kind and path.endswith(".json"):
            all_there.wait()  # one that comes alone gets no answer, and breaks it

    for n in range(2 * _AT_ONCE):
        daemon.put(f"vehicles_status_{n}.json", status_of(f"{n:03}"))
    proxy.fault = wait_for_all
    assert daemon.start("--once", wait=False).wait() == 0
    assert len(daemon.vehicles()) == 2 * _AT_ONCE and daemon.all_keys() == []
    about_objects = [(request, path) for request, path in proxy.counts if path.endswith(".json")]
    assert sum(proxy.counts[found] for found in about_objects) == 4 * _AT_ONCE
