"""Kills the ingest of a bucket before or after any of its requests and COMMITs; a restart must repair all."""

from typing import Any

from tests.chaos.kills import TABLES
from tests.chaos.moments import AFTER, BEFORE, MomentRig
from tests.chaos.nursery import MAIN, Held
from tests.s3_proxy import S3Proxy, running_proxy
from tests.seaweed import Seaweed, credentials, running_seaweed

_PREFIX = "in/"
_NOTE = ".reason.txt"
_FAILED = f"{_PREFIX}failed/"


class BucketRig(MomentRig):
    """A bucket with the files of the other rigs, behind a proxy, as is the database."""

    def prepare(self) -> None:
        super().prepare()
        self._seaweed: Seaweed = self._stack.enter_context(running_seaweed())
        self._bucket = self._seaweed.bucket()
        self._proxy: S3Proxy = self._stack.enter_context(running_proxy(self._seaweed.port))
        self._proxy.fault = self._before
        self._proxy.cut = self._after
        self._proxied_url = self._proxied_database()

    def reset(self) -> None:
        """Restores bucket and tables to their state before the first run."""
        for key in self._keys():
            self._client.delete_object(Bucket=self._bucket, Key=key)
        for name, content in self.files.items():
            self._client.put_object(Bucket=self._bucket, Key=_PREFIX + name, Body=content)
        self.query(f"TRUNCATE {', '.join(f'mobileye_data.{table}' for table in TABLES)}")

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
