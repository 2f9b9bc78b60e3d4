"""A moto server of the tests' own: only for what a bucket sends to a queue, and for the queue itself."""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import URLError

import boto3
from msgspec import json

from tests.seaweed import KEY, SECRET
from tests.support import free_port, until

_REGION = "us-east-1"


class Moto:
    """The server: buckets that send real notifications, and queues that keep them; all in memory."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        nowhere = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=nowhere, stderr=nowhere)
        until(self._answers, 60, "moto answers")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def client(self, service: str) -> Any:
        secrets = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
        return boto3.client(service, endpoint_url=self.url, region_name=_REGION, **secrets)

    def queue(self, name: str) -> "MotoQueue":
        return MotoQueue(self, name)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/moto-api/", timeout=1) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


class MotoQueue:
    """A queue, and what a bucket of any name sends to it."""

    def __init__(self, moto: Moto, name: str) -> None:
        self._sqs = moto.client("sqs")
        self._s3 = moto.client("s3")
        self.url = self._sqs.create_queue(QueueName=name)["QueueUrl"]
        found = self._sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        self._arn = found["Attributes"]["QueueArn"]

    def hear_of(self, bucket: str) -> None:
        """Lets a bucket here send its notifications, beginning with the test event."""
        self._s3.create_bucket(Bucket=bucket)
        events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
        configuration = {"QueueConfigurations": [{"QueueArn": self._arn, "Events": events}]}
        self._s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)

    def put(self, bucket: str, key: str) -> None:
        """Puts an object into the bucket here, which sends a notification."""
        self._s3.put_object(Bucket=bucket, Key=key, Body=b"x")

    def delete(self, bucket: str, key: str) -> None:
        self._s3.delete_object(Bucket=bucket, Key=key)

    def send(self, text: str | dict[str, Any]) -> None:
        body = text if isinstance(text, str) else json.encode(text).decode()
        self._sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def receive(self) -> list[str]:
        answer = self._sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return [message["Body"] for message in answer.get("Messages", [])]

    def size(self) -> int:
        """Messages in it, also those that somebody is reading."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)


@contextmanager
def running_moto() -> Iterator[Moto]:
    moto = Moto()
    moto.start()
    try:
        yield moto
    finally:
        moto.stop()
