"""Metrics, health and dashboard while a bucket is loaded."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from config import Settings
from db.connection import Database
from monitor.dashboard.live import Live, Present
from service import published
from service.drop_folder import Looker
from service.kept_client import KeptClient
from service.marker import Marker
from service.marker_store import store_of
from service.reading import Reading
from sources.policy import BucketPlace
from sources.s3_client import make_client
from tests.monitor.scraping import address_of, get, scrape
from tests.s3_proxy import running_proxy
from tests.seaweed import Seaweed, use_credentials
from tests.service.test_bucket import BucketDaemon, status_of
from tests.support import stopping, until


@pytest.fixture
def daemon(
    tmp_path: Path, database: Database, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BucketDaemon]:
    """A daemon that is not started yet; the tests look at its bucket with the same rights."""
    use_credentials(monkeypatch)
    with stopping(BucketDaemon(tmp_path, database.url, seaweed, METRICS_ADDRESS="127.0.0.1:0")) as daemon:
        yield daemon


@pytest.mark.timeout(300)
def test_metrics_show_what_waits_in_a_bucket_and_its_outages(daemon: BucketDaemon, seaweed: Seaweed) -> None:
    with running_proxy(seaweed.port) as proxy:
        daemon.set(S3_ENDPOINT_URL=proxy.url)
        daemon.start()
        address = address_of(daemon)
        daemon.put("vehicles_status_1.json", status_of("one"))
        daemon.until_empty()
        until(lambda: scrape(address).has("mobileye_waiting_files"), 90)
        assert scrape(address).value("mobileye_records_read_total", kind="vehicles_status") == 1
        proxy.fault = lambda kind, path: (403, "AccessDenied") if kind == "DELETE" else None
        daemon.put("vehicles_status_2.json", status_of("two"))
        until(lambda: scrape(address).value("mobileye_waiting_files") == 1, 90)  # rests after a slow look
        assert get(f"{address}/readyz")[0] == 200
        proxy.fault = lambda kind, path: (400, "ExpiredToken")
        until(lambda: scrape(address).value("mobileye_outage", resource="bucket") == 1)
        until(lambda: get(f"{address}/readyz")[0] == 503)
        proxy.fault = lambda kind, path: None
        until(lambda: scrape(address).value("mobileye_outage", resource="bucket") == 0)
        until(lambda: get(f"{address}/readyz")[0] == 200)


def test_the_dashboard_sees_the_objects_and_the_daemons_of_a_bucket(
    daemon: BucketDaemon, database: Database, seaweed: Seaweed
) -> None:
    settings = Settings(
        watch_folder=f"s3://{daemon.bucket}/in",  # type: ignore[arg-type]
        s3_endpoint_url=seaweed.url,
        database_url=database.url,
    )
    assert settings.bucket == BucketPlace(daemon.bucket, "in/")
    daemon.put("vehicles_status_1.json", status_of("one"))
    seen = present(settings)
    assert (seen.folder.files, seen.daemon.is_running, seen.trouble) == (1, False, "")
    daemon.start()
    daemon.until_empty()
    seen = present(settings)
    assert (seen.folder.files, seen.daemon.is_running) == (0, True) and seen.daemon.since is not None


def test_who_looks_again_and_again_at_a_bucket_has_one_client_which_is_closed_in_the_end(
    daemon: BucketDaemon, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        watch_folder=f"s3://{daemon.bucket}/in",  # type: ignore[arg-type]
        s3_endpoint_url=seaweed.url,
        kafka_bootstrap_servers="127.0.0.1:1",
    )
    assert settings.bucket is not None
    made, closed = [], []

    def make(url: str | None) -> Any:
        made.append(client := make_client(url))
        close = client.close
        monkeypatch.setattr(client, "close", lambda: closed.append(close()))
        return client

    monkeypatch.setattr("sources.s3_client.make_client", make)
    with closing(KeptClient(settings.s3_endpoint_url)) as client:
        store_of(settings, client).add(Marker("kafka:cluster:mobileye", "the topics"))
        looker = Looker(settings, client)
        for _ in range(2):
            found = published.begin(settings, client)
            assert found is not None and found.place == "the topics"
            assert published._unfixed(settings, client) == [] and looker.look(5).error == ""
    assert len(made) == len(closed) == 1


def present(settings: Settings) -> Present:
    """The first look of a dashboard."""

    async def look(live: Live) -> Present:
        task = asyncio.create_task(live.run())
        while live.present is None:
            await asyncio.sleep(0.01)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return live.present

    # In a thread: where the browser's tests ran before, this one has a loop that runs.
    with (
        Reading(settings, lambda: False) as reading,
        closing(KeptClient(settings.s3_endpoint_url)) as client,
        ThreadPoolExecutor(1) as thread,
    ):
        return thread.submit(asyncio.run, look(Live(settings, reading, client))).result()
