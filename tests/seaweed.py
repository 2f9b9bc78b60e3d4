"""A SeaweedFS server of the tests' own: a real S3 server, with users, versions and conditional requests."""

import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config
from msgspec import json

from tests.support import free_port, until

KEY, SECRET = "tester", "secret-of-the-tester"


class Seaweed:
    """The server: its address, and a client that sees it from outside of what is tested."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Any = client(self.url)

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a program that uses it."""
        return {"S3_ENDPOINT_URL": self.url, **credentials()}

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        identity = {
            "name": KEY,
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin"],
        }
        config = self._folder / "identities.json"
        config.write_bytes(json.encode({"identities": [identity]}))
        weed = shutil.which("weed") or str(Path(sys.executable).parent / "weed")
        ports = {name: free_port() for name in ("master", "volume", "filer", "admin")}
        command = [weed, "-logtostderr=true", "mini", f"-dir={self._folder}", "-ip=127.0.0.1"]
        command += ["-ip.bind=127.0.0.1", f"-s3.port={self.port}", f"-s3.config={config}"]
        command += ["-master.telemetry=false", "-webdav=false", "-admin.ui=false"]
        # Without a number there are as many as fit the free disk, and each bucket takes several.
        command += ["-volume.max=10000"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", *(f"-{n}.port={p}" for n, p in ports.items())]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        until(self._answers, 60, "the S3 server answers")

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def bucket(self) -> str:
        """An empty bucket of a test's own."""
        name = f"test-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        return name

    def _answers(self) -> bool:
        try:
            self.client.list_buckets()
            name = "first-" + secrets.token_hex(4)
            self.client.create_bucket(Bucket=name)
            self.client.put_object(Bucket=name, Key="x", Body=b"x")
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
            return False
        return True


def credentials() -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}


def use_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives them to the clients that this process makes."""
    for name, value in credentials().items():
        monkeypatch.setenv(name, value)


def client(url: str) -> Any:
    """A client that neither reads settings of this machine nor repeats a request."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )


@contextmanager
def running_seaweed() -> Iterator[Seaweed]:
    """Yields a server in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        server = Seaweed(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
