"""Daemons on one bucket behind a proxy, with objects whose rows can be identified, and their observers."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from random import Random
from typing import Any

from tests.chaos.background import beside
from tests.chaos.oracle import Reader, judge, leaks, marks
from tests.chaos.producers import LARGEST, Dropped, Journal
from tests.chaos.rig import Figure, Finding, Meter, Trial, prepare
from tests.s3_proxy import S3Proxy, running_proxy
from tests.seaweed import Seaweed, running_seaweed
from tests.support import Daemon, frozen, query, until

_PREFIX = "in/"
_FAILED = f"{_PREFIX}failed/"

TRACEBACK = "Traceback (most recent call last)"

#: Objects that may wait; more would only cost time.
_MOST_WAITING = 400

#: The share of objects that another one replaces, and the longest time until then.
_REPLACED, _REPLACED_WITHIN = 0.1, 0.4


class BucketFleet:
    """Some daemons on one bucket, and the journal of all objects that were put into it."""

    def __init__(self, trial: Trial, url: str, seaweed: Seaweed, proxy: S3Proxy, count: int) -> None:
        self.proxy = proxy
        self.journal = Journal()
        self.reader = Reader(url, self.journal)
        self.url = url
        self.bucket = seaweed.bucket()
        settings = {**seaweed.environment, "S3_ENDPOINT_URL": proxy.url, "WORKERS": 1}
        settings["WATCH_FOLDER"] = f"s3://{self.bucket}/{_PREFIX}"
        self.daemons = [Daemon(trial.folder / f"daemon{n}", url, **settings) for n in range(count)]
        self.meter = Meter(self.daemons[0])
        self.objects = 0
        self._client: Any = seaweed.client
        self._rng: Random = trial.rng
        self._secret = trial.server.password
        self._due: list[tuple[float, Dropped]] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Runs the daemons while a reader looks for torn files."""
        for daemon in self.daemons:
            daemon.start()
        with beside(self.reader.watch), beside(self.meter.measure):
            yield

    def put(self) -> None:
        """Puts an object, some of which another one replaces soon; waits while many are there."""
        self._replace()
        while self.objects % 50 == 0 and self._waiting() > _MOST_WAITING:
            self._replace()
            time.sleep(0.1)
        file = self.journal.draw(self._rng)
        if file.rows <= LARGEST // 20 and self._rng.random() < _REPLACED:
            self._put(self.journal.draw(self._rng, file.rows, file.kind), file.name, optional=True)
            self._due.append((time.monotonic() + self._rng.uniform(0, _REPLACED_WITHIN), file))
        else:
            self._put(file, file.name)

    def keys(self) -> set[str]:
        """Returns the keys of all objects but the marker."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=_PREFIX)
        keys = {found["Key"] for page in pages for found in page.get("Contents", [])}
        return keys - {f"{_PREFIX}.database"}

    def waiting(self) -> set[str]:
        return {key for key in self.keys() if not key.startswith(_FAILED)}

    def revive(self) -> None:
        """Starts the daemons that have ended."""
        for daemon in self.daemons:
            if daemon.process is None or daemon.process.poll() is not None:
                daemon.start(wait=False)

    def drain(self, seconds: float = 300) -> None:
        """Waits until the bucket is empty; the oracle counts what is left."""
        while self._due:
            self._replace()
            time.sleep(0.01)
        self.revive()
        with suppress(AssertionError):
            until(lambda: not self.waiting(), seconds)

    def kill(self, number: int) -> None:
        process = self.daemons[number].process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait(20)

    @contextmanager
    def frozen(self, number: int) -> Iterator[None]:
        """Stops all processes of a daemon, as if its machine stood still."""
        process = self.daemons[number].process
        assert process is not None
        with frozen(process.pid):
            yield

    def finding(self, *figures: Figure) -> Finding:
        """Returns the verdict of the oracle on a drained bucket."""
        for number in range(len(self.daemons)):
            self.kill(number)
        keys = self.keys()
        failed = {key for key in keys if key.startswith(_FAILED)}
        counts = judge(self.url, self.journal, marks(keys - failed), marks(failed))
        counts["torn"] += len(self.reader.torn)
        logs = [line for daemon in self.daemons for line in daemon.log().splitlines()]
        leaking = leaks(logs, [self._secret])
        counts["leaks"] = len(leaking)
        finding = Finding(counts, [*figures, Figure("memory", self.meter.peak, 400, "MB")])
        finding.complaints += [f"the log leaks: {line[:300]}" for line in leaking[:3]]
        traces = [trace[:1500] for daemon in self.daemons for trace in daemon.log().split(TRACEBACK)[1:]]
        # A worker that is being started complains if its daemon is killed.
        finding.complaints += [trace for trace in traces if "in spawn_main" not in trace]
        if not self.reader.looks:
            finding.complaints.append("the reader never looked")
        return finding

    def _replace(self) -> None:
        """Puts the objects that are to replace others by now."""
        now = time.monotonic()
        for due, file in [found for found in self._due if found[0] <= now]:
            self._due.remove((due, file))
            self._put(file, file.name)

    def _put(self, file: Dropped, name: str, *, optional: bool = False) -> None:
        self._client.put_object(Bucket=self.bucket, Key=_PREFIX + name, Body=file.content())
        self.journal.add(file, optional=optional)
        self.objects += 1

    def _waiting(self) -> int:
        ((ended,),) = query(self.url, "SELECT count(*) FROM mobileye_data.ingested_files")
        return self.objects - int(ended)


@contextmanager
def bucket_fleet(trial: Trial, count: int) -> Iterator[BucketFleet]:
    """Yields so many daemons that are not started yet; kills them at the end."""
    with ExitStack() as stack:
        seaweed = stack.enter_context(running_seaweed())
        proxy = stack.enter_context(running_proxy(seaweed.port))
        database = stack.enter_context(trial.server.database())
        prepare(database, is_ours=True)
        fleet = BucketFleet(trial, database.url, seaweed, proxy, count)
        for number in range(count):
            stack.callback(fleet.kill, number)
        yield fleet
