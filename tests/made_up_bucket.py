"""A bucket of any size that is nowhere stored: listing and objects are made up when they are asked for.

It stands where the proxy of other tests does: to fill a real server with 200,000 objects takes longer than
the test.
"""

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from threading import Lock
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.http_server import serving

_DAY = "Sat, 28 Nov 2026 00:00:00 GMT"
_PAGE = """<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><KeyCount>{count}</KeyCount>
<IsTruncated>{more}</IsTruncated>{token}{entries}</ListBucketResult>"""
_ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2026-11-28T00:00:00.000Z</LastModified>"
    "<ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size></Contents>"
)
_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code></Error>"
_MOST_LISTED = 1000


class MadeUpBucket:
    """Keys, the content of each, and whether each may be deleted; it notes what is asked for."""

    def __init__(
        self, keys: Sequence[str], content: Callable[[str], bytes], may_go: Callable[[str], bool]
    ) -> None:
        self._keys = sorted(keys)
        self._content = content
        self._may_go = may_go
        self._gone: set[str] = set()
        self._stored: dict[str, bytes] = {}
        self._lock = Lock()
        self.gets: Counter[str] = Counter()
        self.refused: set[str] = set()
        self.passes = self.pages = 0
        self.url = ""

    def add(self, keys: Sequence[str]) -> None:
        with self._lock:
            self._keys = sorted([*self._keys, *keys])

    def left(self) -> int:
        return len(self._keys) - len(self._gone)

    def _list(self, prefix: str, token: str) -> bytes:
        with self._lock:
            self.passes += not token
            self.pages += 1
            place = bisect_right(self._keys, token)
            found: list[str] = []
            while place < len(self._keys) and len(found) < _MOST_LISTED:
                key = self._keys[place]
                place += 1
                if key not in self._gone and key.startswith(prefix):
                    found.append(key)
        has_more = place < len(self._keys)
        entries = "".join(
            _ENTRY.format(key=escape(key), etag=_etag(self._content(key)), size=len(self._content(key)))
            for key in found
        )
        more = f"<NextContinuationToken>{escape(self._keys[place - 1])}</NextContinuationToken>"
        token = more if has_more else ""
        page = _PAGE.format(count=len(found), more=str(has_more).lower(), token=token, entries=entries)
        return page.encode()

    def _find(self, key: str) -> bytes | None:
        if key in self._stored:
            return self._stored[key]
        place = bisect_right(self._keys, key)
        is_there = place and self._keys[place - 1] == key and key not in self._gone
        return self._content(key) if is_there else None

    def handler(bucket) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path, query = self._asked()
                if "list-type" in query:
                    token = query.get("continuation-token", [""])[0]
                    self._answer(200, bucket._list(query.get("prefix", [""])[0], token))
                    return
                content = bucket._find(path)
                if content is None:
                    self._answer(404, _ERROR.format("NoSuchKey").encode())
                    return
                with bucket._lock:
                    bucket.gets[path] += self.command == "GET"
                self._answer(200, content, _etag(content))

            do_HEAD = do_GET

            def do_PUT(self) -> None:
                path, _ = self._asked()
                bucket._stored[path] = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._answer(200, b"", _etag(bucket._stored[path]))

            def do_DELETE(self) -> None:
                path, _ = self._asked()
                if bucket._find(path) is None:
                    self._answer(404, _ERROR.format("NoSuchKey").encode())
                elif not bucket._may_go(path):
                    with bucket._lock:
                        bucket.refused.add(path)
                    self._answer(403, _ERROR.format("AccessDenied").encode())
                else:
                    with bucket._lock:
                        bucket._gone.add(path)
                    self._answer(204, b"")

            def _asked(self) -> tuple[str, dict[str, list[str]]]:
                parts = urlsplit(self.path)
                return unquote(parts.path.lstrip("/").partition("/")[2]), parse_qs(parts.query)

            def _answer(self, status: int, content: bytes, etag: str = "") -> None:
                self.send_response_only(status)
                if etag:
                    self.send_header("ETag", f'"{etag}"')
                    self.send_header("Last-Modified", _DAY)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD" and status != 204:
                    self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None: ...

        return Handler


def _etag(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@contextmanager
def made_up_bucket(
    keys: Sequence[str], content: Callable[[str], bytes], may_go: Callable[[str], bool] = lambda key: True
) -> Iterator[MadeUpBucket]:
    bucket = MadeUpBucket(keys, content, may_go)
    with serving(bucket.handler()) as bucket.url:
        yield bucket
