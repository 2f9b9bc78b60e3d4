"""The daemon on a bucket whose server gives answers that no page of S3's reference has."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from db.connection import Database
from tests.s3_proxy import Answer, S3Proxy
from tests.seaweed import Seaweed
from tests.service.test_bucket import BAD, BucketDaemon, status_of
from tests.support import stopping, until


@pytest.fixture
def daemon(tmp_path: Path, database: Database, seaweed: Seaweed, proxy: S3Proxy) -> Iterator[BucketDaemon]:
    """A daemon behind the proxy that is not started yet."""
    with stopping(
        BucketDaemon(tmp_path, database.url, seaweed, S3_ENDPOINT_URL=proxy.url, WORKERS=1)
    ) as daemon:
        yield daemon


def test_an_object_that_the_server_has_lost_does_not_stop_the_others(
    daemon: BucketDaemon, proxy: S3Proxy
) -> None:
    """Each request for it is answered with an error of the server, as MinIO and Ceph do without its parts."""
    proxy.fault = lambda kind, path: (500, "InternalError") if path.endswith("lost.json") else None
    for name in ("a", "lost", "z"):
        daemon.put(f"{name}.json", status_of(name))
    daemon.start()
    until(lambda: daemon.all_keys() == ["in/lost.json"], 60)
    daemon.put("later.json", status_of("later"))
    until(lambda: daemon.all_keys() == ["in/lost.json"], 60)
    proxy.fault = lambda kind, path: None
    daemon.until_empty(90)
    assert daemon.vehicles() == ["a", "later", "lost", "z"]


@pytest.mark.parametrize("settings", [{}, {"ON_LOADED": "archive", "ARCHIVE_FOLDER": "s3://{}/done/"}])
def test_an_object_that_could_not_be_deleted_at_first_has_one_copy(
    daemon: BucketDaemon, proxy: S3Proxy, settings: dict[str, str]
) -> None:
    """However many tries and workers it took."""
    daemon.set(WORKERS=2, **{name: value.format(daemon.bucket) for name, value in settings.items()})
    proxy.fault = lambda kind, path: (403, "AccessDenied") if kind == "DELETE" else None
    for n in range(3):
        daemon.put(f"bad_{n}.json", BAD + b" " * n)
        daemon.put(f"good_{n}.json", status_of(f"{n}"))
    deletes = lambda: sum(times for (kind, _), times in proxy.counts.items() if kind == "DELETE")  # noqa: E731
    daemon.start()
    until(lambda: deletes() >= 18, 60)
    proxy.fault = lambda kind, path: None
    until(lambda: all(key.startswith(("in/failed/", "done/")) for key in daemon.all_keys()), 90)
    keys = daemon.all_keys()
    assert sum(key.startswith("in/failed/") for key in keys) == 2 * 3  # each with its note
    assert sum(key.startswith("done/") for key in keys) == (3 if settings else 0)
    copies = sum(times for (kind, _), times in proxy.counts.items() if kind == "COPY")
    assert copies <= 2 * (6 if settings else 3)  # by each worker once


HTML = [("Content-Type", "text/html")]
STRANGE: dict[str, tuple[str, int, bytes]] = {
    "a page in place of the listing": ("LIST", 200, b"<html><p>Please log in<br></html>"),
    "a page that there is no listing": ("LIST", 404, b"<html><p>default backend<br></html>"),
    "an empty listing": ("LIST", 200, b""),
    "a page in place of an object": ("GET", 200, b"<html><p>Please log in<br></html>"),
    "a page that there is no object": ("GET", 404, b"<html><p>default backend<br></html>"),
    "a page that it is forbidden": ("GET", 403, b"<html><p>Blocked<br></html>"),
}


@pytest.mark.parametrize(("kind", "status", "body"), STRANGE.values(), ids=list(STRANGE))
def test_what_something_in_between_answers_is_waited_for(
    daemon: BucketDaemon, proxy: S3Proxy, kind: str, status: int, body: bytes
) -> None:
    daemon.set(RESCAN_SECONDS=0.3)
    daemon.put("first.json", status_of("first"))
    daemon.start()
    daemon.until_empty()
    changed = []

    def change(of: str, path: str, answer: Answer) -> Answer:
        if of != kind:
            return answer
        changed.append(path)
        return status, HTML, body

    proxy.change = change
    daemon.put("good.json", status_of("good"))
    until(lambda: len(changed) >= 4, 60)
    proxy.change = lambda kind, path, answer: answer
    daemon.until_empty(90)
    assert daemon.vehicles() == ["first", "good"]
    assert daemon.stop() == 0 and "Traceback" not in daemon.log() and " failed=0 " in daemon.log()


@pytest.mark.parametrize(
    ("status", "code"), [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed")]
)
def test_a_bucket_in_another_region_is_for_a_person(
    daemon: BucketDaemon, proxy: S3Proxy, status: int, code: str
) -> None:
    daemon.put("first.json", status_of("first"))
    daemon.start()
    daemon.until_empty()
    proxy.fault = lambda kind, path: (status, code)
    daemon.put("good.json", status_of("good"))
    assert daemon.wait() == 2
    assert "the bucket is in another region" in daemon.log() and "Traceback" not in daemon.log()
    assert daemon.all_keys() == ["in/good.json"]


def test_a_redirect_that_passes_is_waited_for(daemon: BucketDaemon, proxy: S3Proxy) -> None:
    daemon.put("good.json", status_of("good"))
    proxy.fault = lambda kind, path: (307, "TemporaryRedirect") if kind in ("LIST", "GET") else None
    daemon.start(wait=False)
    until(lambda: " waiting for the bucket " in daemon.log(), 60)
    proxy.fault = lambda kind, path: None
    daemon.until_empty()
    assert daemon.vehicles() == ["good"]
