"""A bucket as a source, against a real S3 server: the contract, and what only a bucket can do."""

import hashlib
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from processing.errors import Gone, Misconfigured, NotReady, SourceUnavailable
from sources.bucket import BucketSource
from sources.policy import BucketEnds, BucketPlace, OnLoaded
from tests.contracts.source import CONTENT, NAME, Kit, SourceContract
from tests.seaweed import Seaweed, client

#: With its prefix 1,024 bytes.
LONGEST = ("k" * 240 + "/") * 4 + "k" * 52 + ".json"

LARGE = os.urandom(3 * 1024 * 1024)


class BucketKit(Kit):
    def __init__(self, seaweed: Seaweed, on_loaded: OnLoaded = OnLoaded.DELETE) -> None:
        self.client = seaweed.client
        self.place = BucketPlace(seaweed.bucket(), "in/")
        self.on_loaded = on_loaded
        self.source = self.source_with(seaweed.client)

    def source_with(self, client: Any) -> BucketSource:
        ends = BucketEnds("in/failed/", "done/", self.on_loaded)
        return BucketSource(client, self.place, ends)

    def put(self, content: bytes, name: str = NAME) -> None:
        self.client.put_object(Bucket=self.place.bucket, Key=self.place.prefix + name, Body=content)

    def all(self) -> dict[str, bytes]:
        found = self.client.list_objects_v2(Bucket=self.place.bucket).get("Contents", [])
        keys = [entry["Key"] for entry in found]
        return {key: self.client.get_object(Bucket=self.place.bucket, Key=key)["Body"].read() for key in keys}

    def left(self) -> dict[str, bytes]:
        return {key.removeprefix("in/"): body for key, body in self.all().items()}


class Wrapped:
    """A client of which some requests are changed or noted."""

    def __init__(self, inner: Any, **changed: Any) -> None:
        self._inner = inner
        self._changed = changed
        self.requests: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def request(**arguments: Any) -> Any:
            self.requests.append((name, arguments))
            return self._changed.get(name, getattr(self._inner, name))(**arguments)

        return request

    def names(self) -> list[str]:
        return [name for name, _ in self.requests]


@pytest.fixture
def kit(seaweed: Seaweed) -> BucketKit:
    return BucketKit(seaweed)


class TestBucket(SourceContract):
    @pytest.fixture
    def kit(self, seaweed: Seaweed) -> BucketKit:
        return BucketKit(seaweed)

    def test_a_complete_object_is_removed_and_no_other(self, kit: BucketKit) -> None:
        kit.put(CONTENT)
        kit.put(CONTENT, "other.json")
        with kit.source.open(NAME) as file:
            kit.source.complete(file)
        assert kit.left() == {"other.json": CONTENT}

    def test_quarantine_keeps_the_bytes_and_the_reason_once_however_often_it_is_done(
        self, kit: BucketKit
    ) -> None:
        digest = hashlib.sha256(CONTENT).hexdigest()[:8]
        key = f"in/failed/sub/vehicles_status_1-{digest}.json"
        for _ in range(2):
            kit.put(CONTENT, f"sub/{NAME}")
            with kit.source.open(f"sub/{NAME}") as file:
                file.digest()
                assert kit.source.quarantine(file, "it is bad") == f"s3://{kit.place.bucket}/{key}"
        assert kit.all() == {key: CONTENT, f"{key}.reason.txt": b"it is bad\n"}


@pytest.mark.parametrize(
    "name",
    [
        "a b+c%2B.json",
        "u/日本 é.json",
        "line\nbreak.json",
        "#?&=;'\"\\.json",
        "x//y.json",
        LONGEST,
    ],
)
def test_a1_any_key_is_read_and_removed(kit: BucketKit, name: str) -> None:
    kit.put(CONTENT, name)
    with kit.source.open(name) as file:
        assert file.open_bytes().read() == CONTENT
        kit.source.complete(file)
    assert kit.left() == {}


def test_a_bad_object_with_the_longest_key_is_put_aside_with_its_note(kit: BucketKit) -> None:
    kit.put(CONTENT, LONGEST)
    with kit.source.open(LONGEST) as file:
        file.digest()
        kit.source.quarantine(file, "it is bad")
    keys = sorted(kit.all())
    assert [len(key.encode()) for key in keys] == [1013, 1024] and keys[1] == keys[0] + ".reason.txt"


def test_a3_the_same_bytes_have_one_digest_whatever_the_etag(kit: BucketKit) -> None:
    parts = [os.urandom(5 * 1024 * 1024), b"the rest"]
    kit.put(b"".join(parts))
    key = {"Bucket": kit.place.bucket, "Key": "in/parts.json"}
    upload = {**key, "UploadId": kit.client.create_multipart_upload(**key)["UploadId"]}
    done = [
        {"PartNumber": n, "ETag": kit.client.upload_part(**upload, PartNumber=n, Body=part)["ETag"]}
        for n, part in enumerate(parts, 1)
    ]
    kit.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": done})
    digests, etags = set(), set()
    for name in (NAME, "parts.json"):
        with kit.source.open(name) as file:
            file.digest()
            digests.add(file.sha256)
            etags.add(file.identity.etag)
            kit.source.complete(file)
    assert digests == {hashlib.sha256(b"".join(parts)).digest()} and len(etags) == 2
    assert kit.left() == {}


@pytest.mark.parametrize("on_loaded", OnLoaded)
@pytest.mark.parametrize("dispose", ["complete", "quarantine"])
def test_a4_an_object_that_took_the_name_stays(seaweed: Seaweed, on_loaded: OnLoaded, dispose: str) -> None:
    kit = BucketKit(seaweed, on_loaded)
    kit.put(b"old")
    with kit.source.open(NAME) as file:
        file.digest()
        kit.put(b"new")
        with pytest.raises(NotReady, match="another object took its name"):
            kit.source.complete(file) if dispose == "complete" else kit.source.quarantine(file, "bad")
    assert kit.left()[NAME] == b"new"
    assert b"old" not in kit.left().values()  # a copy is made of what was read, or not at all


def test_an_object_that_somebody_else_has_removed_is_done(kit: BucketKit) -> None:
    kit.put(CONTENT)
    with kit.source.open(NAME) as file:
        kit.client.delete_object(Bucket=kit.place.bucket, Key=f"in/{NAME}")
        kit.source.complete(file)


def test_archived_objects_are_moved(seaweed: Seaweed) -> None:
    kit = BucketKit(seaweed, OnLoaded.ARCHIVE)
    kit.put(CONTENT)
    with kit.source.open(NAME) as file:
        file.digest()
        kit.source.complete(file)
    digest = hashlib.sha256(CONTENT).hexdigest()[:8]
    day = f"{datetime.fromtimestamp(file.arrived_at, UTC):%Y-%m-%d}"
    assert kit.all() == {f"done/{day}/vehicles_status_1-{digest}.json": CONTENT}


def test_a5_in_a_versioned_bucket_the_version_before_does_not_come_back(kit: BucketKit) -> None:
    kit.client.put_bucket_versioning(Bucket=kit.place.bucket, VersioningConfiguration={"Status": "Enabled"})
    for content in (b"first", b"second"):
        kit.put(content)
    noted = Wrapped(kit.client)
    source = kit.source_with(noted)
    with source.open(NAME) as file:
        assert file.open_bytes().read() == b"second"
        kit.put(b"third")
        with pytest.raises(NotReady, match="another object took its name"):
            source.complete(file)
    with source.open(NAME) as file:
        assert file.open_bytes().read() == b"third" and file.response.version
        source.complete(file)
    assert kit.left() == {}
    assert all("VersionId" not in arguments for _, arguments in noted.requests)


def test_a9_what_cannot_be_deleted_is_not_got_again(kit: BucketKit) -> None:
    def forbidden(**_: Any) -> Any:
        raise ClientError(
            {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "DeleteObject"
        )

    kit.put(CONTENT)
    noted = Wrapped(kit.client, delete_object=forbidden)
    source = kit.source_with(noted)
    for _ in range(3):
        with source.open(NAME) as file, pytest.raises(NotReady, match=r"can't be removed.*AccessDenied"):
            source.complete(file)
    assert noted.names().count("get_object") == 1
    kit.put(b"another one")
    with source.open(NAME) as file:
        assert file.open_bytes().read() == b"another one"


def test_a12_an_object_in_glacier_waits_with_its_reason(kit: BucketKit) -> None:
    def archived(**_: Any) -> Any:
        raise ClientError(
            {"Error": {"Code": "InvalidObjectState"}, "ResponseMetadata": {"HTTPStatusCode": 403}},
            "GetObject",
        )

    source = kit.source_with(Wrapped(kit.client, get_object=archived))
    with pytest.raises(NotReady, match="Glacier"), source.open(NAME):
        pass


class Cut:
    """A body that breaks after some bytes."""

    def __init__(self, inner: Any, after: int) -> None:
        self._inner, self._left = inner, after

    def read(self, size: int) -> bytes:
        chunk: bytes = self._inner.read(min(size, self._left)) if self._left else b""
        self._left -= len(chunk)
        if not chunk:
            raise ConnectionResetError("cut")
        return chunk

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize("content", [CONTENT, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a7_a_broken_transfer_goes_on_where_it_broke(kit: BucketKit, content: bytes, share: float) -> None:
    def cut(**arguments: Any) -> Any:
        answer = kit.client.get_object(**arguments)
        if "Range" not in arguments:
            answer["Body"] = Cut(answer["Body"], int(len(content) * share))
        return answer

    kit.put(content)
    noted = Wrapped(kit.client, get_object=cut)
    with kit.source_with(noted).open(NAME) as file:
        file.digest()
        assert file.sha256 == hashlib.sha256(content).digest()
        assert file.open_bytes().read() == content
    ranges = [arguments.get("Range") for _, arguments in noted.requests]
    assert ranges == [None, f"bytes={int(len(content) * share)}-"]


def test_a7_a_transfer_never_goes_on_with_another_object(kit: BucketKit) -> None:
    def cut(**arguments: Any) -> Any:
        answer = kit.client.get_object(**arguments)
        if "Range" not in arguments:
            answer["Body"] = Cut(answer["Body"], 1000)
            kit.put(b"x" * len(CONTENT))
        return answer

    kit.put(CONTENT)
    source = kit.source_with(Wrapped(kit.client, get_object=cut))
    with source.open(NAME) as file, pytest.raises(NotReady, match="replaced"):
        file.digest()


def test_a_large_object_leaves_no_name_in_the_temporary_folder(
    kit: BucketKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kit.put(LARGE)
    with kit.source.open(NAME) as file:
        file.digest()
        assert list(tmp_path.iterdir()) == []
        assert file.open_bytes().read() == LARGE


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address that refuses every connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_is_away_is_an_outage_before_the_commit_and_a_wait_after_it(
    kit: BucketKit, closed_port: str
) -> None:
    away = client(closed_port)
    with pytest.raises(SourceUnavailable), kit.source_with(away).open(NAME):
        pass
    kit.put(CONTENT)
    source = kit.source_with(Wrapped(kit.client, delete_object=away.delete_object))
    with source.open(NAME) as file, pytest.raises(NotReady):
        source.complete(file)


def test_a_missing_bucket_is_for_a_person(kit: BucketKit) -> None:
    ends = BucketEnds("failed/", "", OnLoaded.DELETE)
    source = BucketSource(kit.client, BucketPlace("no-such-bucket-here", ""), ends)
    with pytest.raises((Misconfigured, Gone)), source.open(NAME):
        pass
