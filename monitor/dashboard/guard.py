"""Decides who may see the dashboard: whoever is on this machine, or has the token."""

import hmac
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

_COOKIE = "mobileye_dashboard"
_COOKIE_SECONDS = 30 * 86_400

#: A form with a token is shorter.
_MOST_BYTES = 4096

#: Nothing is loaded from elsewhere, or sent there. The library compiles its templates in the browser.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",  # with no-referrer the form would come from the origin "null"
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_FORM = """<!doctype html>
<html lang="en"><head><title>Mobileye dashboard</title><meta name="color-scheme" content="light dark">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body { font: 16px system-ui, sans-serif; max-width: 22rem; margin: 20vh auto; padding: 0 1rem }
input, button { font: inherit; width: 100%; box-sizing: border-box; padding: .5rem; margin: .25rem 0 }</style>
</head><body><h1>Mobileye dashboard</h1>
<form method="post"><label>Token, as DASHBOARD_TOKEN has it
<input name="token" type="password" autocomplete="current-password" autofocus required></label>
<button>Enter</button></form></body></html>"""


class Guard:
    """Stands before the pages and their sockets.

    Without a token only this machine may look, under one of its own names: a page of somebody else can give
    its own name our address, and then read what we answer. No page of another site may connect to us at all.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._cookie = hmac.new(self._token or b"", b"mobileye dashboard", "sha256").hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        answer = await self._answer(scope, receive)
        if answer is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
        else:
            await answer(scope, receive, _with_headers(send))

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """Returns what to answer in place of the page; None if it may be seen."""
        request = HTTPConnection(scope)
        if _is_of_another_site(request.headers):
            return PlainTextResponse("This page is not for other sites.", 403)
        if self._token is None:
            if _is_own_name(request.headers.get("host", "")):
                return None
            return PlainTextResponse("Without DASHBOARD_TOKEN the address has to be 127.0.0.1.", 403)
        if scope["type"] == "http":
            given = await _given_token(scope, receive)
            if given is not None and hmac.compare_digest(given.encode(), self._token):
                return self._entered(request)
        if hmac.compare_digest(request.cookies.get(_COOKIE, "").encode(), self._cookie.encode()):
            return None
        return HTMLResponse(_FORM, 401)

    def _entered(self, request: HTTPConnection) -> Response:
        """Leads to the same address without the token: it is not to be kept, or sent on, with the view."""
        others = [(name, value) for name, value in parse_qsl(request.url.query) if name != "token"]
        path = "/" + request.url.path.lstrip("/")  # "//host" would lead elsewhere
        answer = RedirectResponse(path + (f"?{urlencode(others)}" if others else ""), 303)
        is_secure = request.url.scheme == "https"
        answer.set_cookie(
            _COOKIE, self._cookie, _COOKIE_SECONDS, httponly=True, samesite="lax", secure=is_secure
        )
        return answer


async def _given_token(scope: Scope, receive: Receive) -> str | None:
    """Returns the token of the address or of the form."""
    request = Request(scope, receive)
    if request.method == "POST" and not request.url.path.startswith("/_nicegui"):
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MOST_BYTES:
                return None
        return dict(parse_qsl(body.decode(errors="replace"))).get("token")
    return request.query_params.get("token")


def _is_of_another_site(headers: Headers) -> bool:
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()


def _is_own_name(host: str) -> bool:
    """Returns whether a Host header names this machine as only this machine does."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_HEADERS)
        await send(message)

    return sending
