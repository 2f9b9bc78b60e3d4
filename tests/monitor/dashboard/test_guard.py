"""Who may see the dashboard: this machine alone, or whoever has the token; and no page of another site."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from monitor.dashboard.guard import Guard

TOKEN = "0123456789abcdef"


async def page(request: Request) -> Response:
    return PlainTextResponse(f"seen {request.url.query}")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("heard")
    await socket.close()


def client(token: str | None, host: str = "127.0.0.1:8090") -> TestClient:
    routes = [Route("/{path:path}", page), WebSocketRoute("/socket", talk)]
    guard = Guard(Starlette(routes=[routes[1], routes[0]]), token)
    return TestClient(guard, base_url=f"http://{host}", follow_redirects=False)


def hears(client: TestClient, **headers: str) -> bool:
    try:
        place = str(client.base_url).replace("http:", "ws:")
        with client.websocket_connect(f"{place}/socket", headers=headers) as socket:
            return socket.receive_text() == "heard"
    except WebSocketDisconnect:
        return False


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8090", "127.1.2.3", "localhost", "LOCALHOST:9", "[::1]:8090", "[::1]"]
)
def test_without_a_token_this_machine_may_look(host: str) -> None:
    asking = client(None, host)
    assert asking.get("/").text == "seen "
    assert hears(asking)


@pytest.mark.parametrize(
    "host", ["evil.example:8090", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1:8090", "x"]
)
def test_without_a_token_no_other_name_may_lead_here(host: str) -> None:
    """A page of evil.example may give its name our address: its scripts would read what we answer."""
    asking = client(None, host)
    assert asking.get("/").status_code == 403
    assert not hears(asking)


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:80", "null", ""])
def test_no_page_of_another_site_may_ask(token: str | None, origin: str) -> None:
    asking = client(token)
    asking.get("/", params={"token": TOKEN})
    assert asking.get("/", headers={"Origin": origin}).status_code == 403
    assert not hears(asking, Origin=origin)
    assert hears(asking, Origin="http://127.0.0.1:8090")


def test_with_a_token_nothing_is_seen_without_it() -> None:
    asking = client(TOKEN, "dash.example")
    for path in ("/", "/fleet", "/_nicegui/static/x.js", "/_nicegui_ws/socket.io/"):
        for answer in (
            asking.get(path),
            asking.post(path, data={"x": "y"}),
            asking.get(f"{path}?token=wrong"),
        ):
            assert (answer.status_code, "seen" in answer.text) == (401, False)
    assert not hears(asking)


def test_the_token_in_the_address_lets_one_in_and_is_gone_from_it() -> None:
    asking = client(TOKEN, "dash.example")
    answer = asking.get(f"/fleet?vehicle=a%26b&token={TOKEN}&since=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/fleet?vehicle=a%26b&since=1")
    assert asking.get("/fleet").text == "seen "
    assert hears(asking)


def test_the_token_in_the_form_lets_one_in() -> None:
    asking = client(TOKEN, "dash.example")
    assert "<form" in asking.get("/fleet?vehicle=v").text
    answer = asking.post("/fleet?vehicle=v", data={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/fleet?vehicle=v")
    assert asking.get("/").text == "seen "


def test_the_cookie_does_not_hold_the_token_and_no_script_reads_it() -> None:
    cookie = client(TOKEN).get("/", params={"token": TOKEN}).headers["set-cookie"]
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie


def test_the_cookie_of_another_token_lets_nobody_in() -> None:
    asking = client(TOKEN)
    asking.get("/", params={"token": TOKEN})
    other = client("another-token-here")
    other.cookies = asking.cookies
    assert other.get("/").status_code == 401


@pytest.mark.parametrize("path", ["//evil.example/x", "/\\evil.example", "/%5Cevil.example", "/%0d%0aX: y"])
def test_the_way_in_leads_nowhere_else(path: str) -> None:
    location = client(TOKEN).get(f"{path}?token={TOKEN}").headers["location"]
    assert location.startswith("/") and location[1:2] not in ("/", "\\")
    assert "\n" not in location


def test_a_form_without_an_end_is_not_read() -> None:
    assert client(TOKEN).post("/", content=b"token=" + b"x" * 100_000).status_code == 401


@pytest.mark.parametrize("token", [None, TOKEN])
def test_every_answer_forbids_what_comes_from_elsewhere(token: str | None) -> None:
    answer = client(token).get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert answer.headers["referrer-policy"] == "same-origin"
