"""Kills the ingest of a bucket before or after any of its requests and COMMITs; a restart must repair all."""

import os
from collections import Counter
from contextlib import ExitStack, suppress
from signal import SIGKILL
from threading import Lock
from typing import Any

from tests.chaos.kills import TABLES, KillRig, Point
from tests.chaos.nursery import MAIN, Held
from tests.chaos.proxy import TO_SERVER, Proxy
from tests.s3_proxy import S3Proxy, running_proxy
from tests.seaweed import Seaweed, credentials, running_seaweed

#: When a kill strikes: the other end has not seen the request, or has answered it.
BEFORE, AFTER = "before", "after"

_COMMIT = "COMMIT"
_PLAIN = "sslmode=disable&gssencmode=disable"
_PREFIX = "in/"
_NOTE = ".reason.txt"
_FAILED = f"{_PREFIX}failed/"


class Moments:
    """The requests and COMMITs of a run: each is noted before and after, and at one of them it is killed."""

    def __init__(self) -> None:
        self.seen: list[Point] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = Lock()
        self._point: Point | None = None
        self._pid = 0
        self.is_struck = False

    def arm(self, pid: int, point: Point | None) -> None:
        """Starts anew: a process that is to be killed at the point."""
        self.seen, self._counts = [], Counter()
        self._pid, self._point, self.is_struck = pid, point, False

    def reached(self, moment: str, call: str) -> bool:
        """Notes a moment; returns whether the process is dead."""
        with self._lock:
            self._counts[moment, call] += 1
            point = Point(moment, call, self._counts[moment, call])
            self.seen.append(point)
            if point == self._point:
                self.is_struck = True
                with suppress(ProcessLookupError):
                    os.kill(self._pid, SIGKILL)
            return self.is_struck


class BucketRig(KillRig):
    """A bucket with the files of the other rigs, behind a proxy, as is the database."""

    def prepare(self) -> None:
        self.moments = Moments()
        self._stack = ExitStack()
        self._seaweed: Seaweed = self._stack.enter_context(running_seaweed())
        self._bucket = self._seaweed.bucket()
        self._proxy: S3Proxy = self._stack.enter_context(running_proxy(self._seaweed.port))
        self._proxy.fault = self._before
        self._proxy.cut = self._after
        port = int(self.url.rpartition(":")[2].partition("/")[0])
        self._database = self._stack.enter_context(Proxy(port).running())
        self._database.may_pass = self._may_pass
        self._proxied_url = f"{self.url.replace(str(port), str(self._database.port))}?{_PLAIN}"

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._stack.close()

    def reset(self) -> None:
        """Restores bucket and tables to their state before the first run."""
        for key in self._keys():
            self._client.delete_object(Bucket=self._bucket, Key=key)
        for name, content in self.files.items():
            self._client.put_object(Bucket=self._bucket, Key=_PREFIX + name, Body=content)
        self.query(f"TRUNCATE {', '.join(f'mobileye_data.{table}' for table in TABLES)}")

    def trace(self) -> list[Point]:
        """Returns each moment of a run without faults."""
        self.reset()
        self._without_faults(self._held())
        return list(self.moments.seen)

    def kill_at(self, point: Point) -> bool:
        held = self._held()
        self.moments.arm(held.pid, point)
        ended = held.run()
        assert not ended.hung and ended.code in (0, -SIGKILL), self.nursery.log.read_text()
        return self.moments.is_struck

    def left(self) -> list[str]:
        """Returns objects that are neither loaded nor put aside, and notes without an object."""
        keys = self._keys()
        waiting = [key for key in keys if not key.startswith(_FAILED)]
        notes = [key for key in keys if key.endswith(_NOTE)]
        return sorted([*waiting, *(note for note in notes if note.removesuffix(_NOTE) not in keys)])

    def failed(self) -> list[str]:
        return sorted(key for key in self._keys() if key.startswith(_FAILED) and not key.endswith(_NOTE))

    @property
    def _client(self) -> Any:
        return self._seaweed.client

    def _keys(self) -> list[str]:
        answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=_PREFIX)
        return [found["Key"] for found in answer.get("Contents", [])]

    def _held(self, thread: str = MAIN) -> Held:
        arguments = (self._bucket, _PREFIX, self._proxy.url, self._proxied_url)
        held = self.nursery.hold("bucket", *arguments, environment=credentials())
        self.moments.arm(held.pid, None)
        return held

    def _before(self, kind: str, path: str) -> tuple[int, str] | None:
        return (503, "Killed") if self.moments.reached(BEFORE, kind) else None

    def _after(self, kind: str, path: str) -> float | None:
        return 0.0 if self.moments.reached(AFTER, kind) else None

    def _may_pass(self, direction: str, message: bytes) -> bool:
        if direction == TO_SERVER and message.startswith(b"Q") and message[5:11] == b"COMMIT":
            return not self.moments.reached(BEFORE, _COMMIT)
        if direction != TO_SERVER and message.startswith(b"C") and message[5:11] == b"COMMIT":
            return not self.moments.reached(AFTER, _COMMIT)
        return True
