"""A bucket as a source whose server, or whatever stands before it, answers in ways of its own."""

import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from msgspec import json

from processing.errors import Gone, Misconfigured, NotReady, SourceUnavailable
from service.bucket_marker import BucketStore
from sources.bucket_object import first_name, split_name
from sources.s3_client import make_client
from tests.certificates import make_ca, make_certificate
from tests.contracts.source import CONTENT, NAME
from tests.http_server import serving
from tests.s3_proxy import Answer, running_proxy
from tests.seaweed import Seaweed, credentials, use_credentials
from tests.sources.test_bucket import LARGE, BucketKit, Cut, Wrapped

_BROKEN = {"Error": {"Code": "InternalError"}, "ResponseMetadata": {"HTTPStatusCode": 500}}


@pytest.fixture
def kit(seaweed: Seaweed) -> BucketKit:
    return BucketKit(seaweed)


@pytest.mark.parametrize("content", [CONTENT, LARGE], ids=["small", "large"])
def test_where_no_parts_of_objects_are_sent_a_broken_transfer_begins_anew(
    kit: BucketKit, content: bytes
) -> None:
    def cut(**arguments: Any) -> Any:
        if arguments.pop("Range", None) is None:
            answer = kit.client.get_object(**arguments)
            return {**answer, "Body": Cut(answer["Body"], len(content) // 2)}
        return kit.client.get_object(**arguments)

    kit.put(content)
    with kit.source_with(Wrapped(kit.client, get_object=cut)).open(NAME) as file:
        file.digest()
        assert file.sha256 == hashlib.sha256(content).digest()
        assert file.open_bytes().read() == content


def test_where_conditions_of_reading_are_ignored_a_transfer_goes_on_with_no_other_object(
    kit: BucketKit,
) -> None:
    def cut(**arguments: Any) -> Any:
        if arguments.pop("IfMatch", None) is None:
            answer = kit.client.get_object(**arguments)
            kit.put(b"x" * len(CONTENT))
            return {**answer, "Body": Cut(answer["Body"], 1000)}
        return kit.client.get_object(**arguments)

    kit.put(CONTENT)
    source = kit.source_with(Wrapped(kit.client, get_object=cut))
    with source.open(NAME) as file, pytest.raises(NotReady, match="replaced"):
        file.digest()


@pytest.mark.parametrize("field", ["ETag", "ContentLength", "LastModified"])
def test_an_answer_without_what_is_needed_makes_the_object_wait(kit: BucketKit, field: str) -> None:
    def without(**arguments: Any) -> Any:
        answer = kit.client.get_object(**arguments)
        del answer[field]
        return answer

    kit.put(CONTENT)
    source = kit.source_with(Wrapped(kit.client, get_object=without))
    with pytest.raises(NotReady, match=f"does not tell its {field}"), source.open(NAME):
        pass


@pytest.mark.parametrize("moment", ["open", "resume"])
def test_an_object_that_alone_can_not_be_got_waits_and_is_no_outage(kit: BucketKit, moment: str) -> None:
    def broken(**arguments: Any) -> Any:
        if moment == "open" or "Range" in arguments:
            raise ClientError(_BROKEN, "GetObject")
        answer = kit.client.get_object(**arguments)
        return {**answer, "Body": Cut(answer["Body"], 10)}

    def refused(**_: Any) -> Any:
        raise ClientError(_BROKEN, "ListObjectsV2")

    kit.put(CONTENT)
    source = kit.source_with(Wrapped(kit.client, get_object=broken))
    with pytest.raises(NotReady, match="though the server answers"), source.open(NAME) as file:
        file.digest()
    source = kit.source_with(Wrapped(kit.client, get_object=broken, list_objects_v2=refused))
    with pytest.raises(SourceUnavailable), source.open(NAME) as file:
        file.digest()


def test_an_empty_object_that_could_not_be_deleted_is_read_again(kit: BucketKit) -> None:
    def forbidden(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "DeleteObject")

    kit.put(b"")
    source = kit.source_with(Wrapped(kit.client, delete_object=forbidden))
    for _ in range(2):
        with source.open(NAME) as file:
            file.digest()
            assert file.open_bytes().read() == b""
            with pytest.raises(NotReady):
                source.complete(file)


@pytest.mark.parametrize("stem", ["İ", "İİ", "x-12345678\n", "a.json"])
@pytest.mark.parametrize("ending", [".json", ".JSON.gz"])
def test_a_failed_object_keeps_its_ending_and_its_first_name_is_found(
    kit: BucketKit, stem: str, ending: str
) -> None:
    name = stem + ending
    kit.put(CONTENT, name)
    with kit.source.open(name) as file:
        file.digest()
        key = kit.source.quarantine(file, "it is bad").removeprefix(f"s3://{kit.place.bucket}/in/failed/")
    assert split_name(key)[1] == ending and first_name(key) == name


_ODD = ["a b+c%2B.json", "u/日本 é.json", "line\nbreak.json", "#?&=;'\"\\.json", "x//y.json", "\x01\x7f.json"]


@pytest.mark.parametrize("name", _ODD)
def test_a1_any_key_is_put_aside(kit: BucketKit, name: str) -> None:
    kit.put(CONTENT, name)
    with kit.source.open(name) as file:
        file.digest()
        kit.source.quarantine(file, "it is bad")
    keys = kit.client.list_objects_v2(Bucket=kit.place.bucket)["Contents"]
    assert len(keys) == 2 and all(found["Key"].startswith("in/failed/") for found in keys)


def test_a_copy_that_fails_behind_its_good_status_deletes_nothing(
    kit: BucketKit, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 answers 200 at once where a copy takes long, and says later that it failed."""

    def fail(kind: str, path: str, answer: Answer) -> Answer:
        body = b'<?xml version="1.0"?>\n<Error><Code>InternalError</Code><Message>again</Message></Error>'
        return (200, [("Content-Type", "application/xml")], body) if kind == "COPY" else answer

    kit.put(CONTENT)
    use_credentials(monkeypatch)
    with running_proxy(seaweed.port) as proxy:
        proxy.change = fail
        source = kit.source_with(make_client(proxy.url))
        with source.open(NAME) as file:
            file.digest()
            with pytest.raises(NotReady, match="can't be removed"):
                source.quarantine(file, "it is bad")
    assert kit.left()[NAME] == CONTENT


@pytest.mark.parametrize("name", ["../x.json", "a/../../x.json", "./x.json", "a/./x.json"])
def test_a_key_that_may_be_taken_for_another_one_is_not_asked_for(kit: BucketKit, name: str) -> None:
    noted = Wrapped(kit.client)
    with pytest.raises(NotReady, match="rename it"), kit.source_with(noted).open(name):
        pass
    assert noted.names() == []


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_large_object_is_put_aside_in_parts(
    kit: BucketKit, monkeypatch: pytest.MonkeyPatch, is_replaced: bool
) -> None:
    monkeypatch.setattr("sources.bucket._MOST_COPIED", 10_000_000)
    monkeypatch.setattr("sources.bucket._PART_BYTES", 5 * 1024**2)
    content = LARGE * 4
    kit.put(content)
    with kit.source.open(NAME) as file:
        file.digest()
        if is_replaced:
            kit.put(CONTENT)
            with pytest.raises(NotReady, match="another object took its name"):
                kit.source.quarantine(file, "it is bad")
            assert kit.left() == {NAME: CONTENT}
            return
        kit.source.quarantine(file, "it is bad")
    keys = sorted(kit.all())
    assert len(keys) == 2 and kit.all()[keys[0]] == content


@contextmanager
def breaking_handshakes() -> Iterator[str]:
    """The address of a server that ends each connection, as a load balancer without servers does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def end_all() -> None:
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                link.recv(10_000)
                link.sendall(b"\x15\x03\x03\x00\x02\x02\x28")  # an alert: the handshake has failed
                link.close()

        threading.Thread(target=end_all, daemon=True).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_a_handshake_that_breaks_is_an_outage(kit: BucketKit, monkeypatch: pytest.MonkeyPatch) -> None:
    use_credentials(monkeypatch)
    with breaking_handshakes() as url:
        source = kit.source_with(make_client(url))
        with pytest.raises(SourceUnavailable), source.open(NAME):
            pass


def test_a_certificate_of_nobody_known_is_for_a_person(
    kit: BucketKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_certificate(tmp_path, make_ca(tmp_path, "ca"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use_credentials(monkeypatch)
    source = kit.source_with(make_client(f"https://localhost:{server.server_address[1]}"))
    with pytest.raises(Misconfigured, match="certificate"), source.open(NAME):
        pass
    server.shutdown()
    server.server_close()


class Expired(BaseHTTPRequestHandler):
    """Gives credentials that have expired, as they seem to a machine whose clock is ahead."""

    def do_GET(self) -> None:
        body = {
            "AccessKeyId": "a",
            "SecretAccessKey": "b",
            "Token": "c",
            "Expiration": "2020-01-01T00:00:00Z",
        }
        content = json.encode(body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


def test_credentials_that_come_expired_are_an_outage(
    kit: BucketKit, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in credentials():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with serving(Expired) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        source = kit.source_with(make_client(seaweed.url))
        with pytest.raises(SourceUnavailable, match="expired"), source.open(NAME):
            pass


def test_a_page_of_something_in_between_does_not_say_that_an_object_or_a_marker_is_gone(
    kit: BucketKit, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (404, [("Content-Type", "text/html")], b"<html><p>default backend<br></html>")
    use_credentials(monkeypatch)
    kit.put(CONTENT)
    with running_proxy(seaweed.port) as proxy:
        proxy.change = lambda kind, path, answer: page if kind == "GET" else answer
        client = make_client(proxy.url)
        with pytest.raises(NotReady, match="404"), kit.source_with(client).open(NAME):
            pass
        with pytest.raises(SourceUnavailable, match="404"):
            BucketStore(client, kit.place).read()
        proxy.change = lambda kind, path, answer: answer
        with pytest.raises(Gone), kit.source_with(client).open("other.json"):
            pass
        assert BucketStore(client, kit.place).read() is None
