"""python main.py publish on a bucket, as its user starts it."""

from pathlib import Path

from tests.kafka import Broker
from tests.publish.publisher import PublisherDaemon
from tests.seaweed import Seaweed
from tests.support import until


class BucketPublisher(PublisherDaemon):
    """A publisher of a bucket of its own."""

    def __init__(
        self, folder: Path, broker: Broker, seaweed: Seaweed, topics: str, **settings: object
    ) -> None:
        self.bucket = seaweed.bucket()
        self._client = seaweed.client
        place = {"WATCH_FOLDER": f"s3://{self.bucket}/in", **seaweed.environment}
        super().__init__(folder, broker, topics, **{**place, **settings})

    def put(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket=self.bucket, Key=f"in/{name}", Body=content)

    def keys(self) -> list[str]:
        """All keys but the marker."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [o["Key"] for page in pages for o in page.get("Contents", []) if o["Key"] != "in/.database"]

    def waiting(self) -> list[str]:
        return [key for key in self.keys() if not key.startswith("in/failed/")]

    def until_empty(self, seconds: float = 30.0) -> None:
        until(lambda: not self.keys(), seconds, f"the bucket is empty; log:\n{self.log()[-3000:]}")
