"""A proxy before an S3 server: counts requests, answers some with an error, and lets tests act before others.

It passes on all bytes as they are, the Host header too, which the signature of a request covers.
"""

import http.client
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from threading import Lock
from urllib.parse import parse_qs, urlsplit

from tests.http_server import serving

_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>by the proxy</Message></Error>"

#: Answers a request in the server's place, with status and code; None lets it through.
Fault = Callable[[str, str], tuple[int, str] | None]

#: Returns the share of an answer that passes before the link is cut; None lets all of it through.
Cut = Callable[[str, str], float | None]

#: An answer: its status, its headers and its body.
Answer = tuple[int, list[tuple[str, str]], bytes]

#: Returns what the client gets of an answer, of which it may change anything.
Change = Callable[[str, str, Answer], Answer]


class S3Proxy:
    """The proxy. Fault is asked before each request, with its kind (LIST, GET, COPY …) and path; cut is
    asked when the server has answered and the client does not know yet."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.counts: Counter[tuple[str, str]] = Counter()
        self.fault: Fault = lambda kind, path: None
        self.cut: Cut = lambda kind, path: None
        self.change: Change = lambda kind, path, answer: answer
        self._lock = Lock()
        self.url = ""

    def judge(self, kind: str, path: str) -> tuple[int, str] | None:
        with self._lock:
            self.counts[kind, path] += 1
        return self.fault(kind, path)

    def gets(self, ending: str) -> int:
        """How often objects whose keys end so were asked for."""
        found = self.counts.items()
        return sum(times for (kind, path), times in found if kind == "GET" and path.endswith(ending))

    def handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = urlsplit(self.path)
                kind = "LIST" if "list-type" in parse_qs(path.query) else self.command
                kind = "COPY" if "x-amz-copy-source" in self.headers else kind
                answer = proxy.judge(kind, path.path)
                if answer is not None:
                    self._answer(answer[0], [], _ERROR.format(answer[1]).encode())
                    return
                with closing(http.client.HTTPConnection("127.0.0.1", proxy.target_port, timeout=60)) as link:
                    link.request(self.command, self.path, body, dict(self.headers))
                    response = link.getresponse()
                    content = response.read()
                headers = [(n, v) for n, v in response.getheaders() if n.lower() not in _OWN]
                status, headers, content = proxy.change(kind, path.path, (response.status, headers, content))
                if self.command == "HEAD":
                    headers.append(("Content-Length", response.getheader("Content-Length", "0")))
                share = proxy.cut(kind, path.path)
                if share is None:
                    self._answer(status, headers, content)
                else:
                    self._answer_in_part(status, headers, content, share)

            def _answer_in_part(
                self, status: int, headers: list[tuple[str, str]], content: bytes, share: float
            ) -> None:
                if share > 0:
                    headers.append(("Content-Length", str(len(content))))
                    self.send_response_only(status)
                    for name, value in headers:
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content[: int(len(content) * share)])
                self.close_connection = True
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.shutdown(socket.SHUT_RDWR)

            def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = handle_any

            def log_message(self, format: str, *args: object) -> None: ...

        return Handler


_OWN = ("content-length", "transfer-encoding", "connection")


@contextmanager
def running_proxy(target_port: int) -> Iterator[S3Proxy]:
    """Yields a proxy that passes everything on, until it is told otherwise."""
    proxy = S3Proxy(target_port)
    with serving(proxy.handler()) as proxy.url:
        yield proxy
