"""The pages as a person sees them, in a real browser."""

import re
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from db.connection import Database
from tests.monitor.dashboard.support import Dashboard, ago, fleet_files, seen
from tests.support import Daemon, Server, detections, statuses, until

expect.set_options(timeout=20_000)

PHONE: Any = {"width": 360, "height": 740}
HOSTILE = "<img src=x onerror=window.hacked=1>\"'{{7*7}}"


class Visit:
    """A page with all that it asked for and complained about."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("websocket", lambda socket: self.asked.append(socket.url))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, url: str) -> Page:
        self.page.goto(url)
        return self.page


@pytest.fixture
def visit(browser: Browser) -> Any:
    visits = []

    def begin(**how: Any) -> Visit:
        context = browser.new_context(**how)
        visits.append(Visit(context.new_page()))
        return visits[-1]

    yield begin
    for each in visits:
        each.page.context.close()
        assert each.complaints == []


Begin = Callable[..., Visit]


def tile(page: Page, label: str) -> Any:
    return page.locator(".tile", has=page.locator(".label", has_text=re.compile(f"^{label}$")))


def number_in(page: Page, label: str) -> int:
    words = str(tile(page, label).locator(".value").text_content()).split()
    return int(words[0].replace(",", ""))


def card(page: Page, title: str) -> Any:
    return page.locator(".card", has=page.get_by_role("heading", name=title, exact=True))


def test_without_a_daemon_and_without_data_the_pages_say_what_to_do(
    daemon: Daemon, dashboard: Dashboard, visit: Begin
) -> None:
    page = visit().open(dashboard.url)
    expect(page.locator(".notice", has_text="There is no watch folder").locator("code")).to_have_text(
        "python main.py"
    )
    daemon.incoming.mkdir()
    notice = page.locator(".notice", has_text="No daemon watches")
    expect(notice.locator("code")).to_have_text("python main.py")
    expect(card(page, "Last files").locator("code")).to_have_text("python main.py demo")
    expect(card(page, "Failed files")).to_contain_text("No failed file waits")
    expect(card(page, "Kafka topics")).to_be_hidden()
    daemon.rows(
        "INSERT INTO mobileye_data.stream_positions (topic, topic_id, partition, next_offset)"
        " VALUES ('fleet.vehicle_status', 'id', 0, 1234) RETURNING 1"
    )
    expect(card(page, "Kafka topics")).to_contain_text("fleet.vehicle_status", timeout=90_000)
    expect(card(page, "Kafka topics")).to_contain_text("1,234")
    page.get_by_role("link", name="Fleet").click()
    expect(card(page, "Detections").locator("code")).to_have_text("python main.py demo")
    for title in ("Vehicles", "Busiest vehicles", "Accidents", "Files", "Rejected records"):
        expect(card(page, title).locator(".notice")).to_contain_text(re.compile("No |There are no"))


def test_numbers_and_plots_move_while_files_are_loaded(
    daemon: Daemon, dashboard: Dashboard, visit: Begin
) -> None:
    daemon.start()
    page = visit().open(dashboard.url)
    expect(page.locator(".about .notice.good")).to_contain_text("Nothing needs a person")
    drawn = lambda: card(page, "Rows").locator("svg").inner_html()  # noqa: E731
    before = until(drawn)
    for number in range(3):
        content = detections(*[seen(f"v{number}-{i}", ago(minutes=i), cars=2, signs=1) for i in range(20)])
        daemon.drop(f"objects_detection_{number}.json", content)
    daemon.until_empty()
    expect(tile(page, "Rows now")).to_contain_text("120 rows in the last hour")
    expect(tile(page, "Loaded now")).to_contain_text("3 files in the last hour")
    expect(card(page, "Last files").locator("tbody tr")).to_have_count(3)
    until(lambda: drawn() != before)
    expect(card(page, "Rows").locator("svg")).to_contain_text("inserted")


def test_a_failure_is_shown_with_its_reason_and_the_next_step(
    daemon: Daemon, dashboard: Dashboard, visit: Begin
) -> None:
    daemon.start()
    page = visit().open(dashboard.url)
    daemon.drop("vehicles_status_1.json", b"no json")
    daemon.drop("vehicles_status_2.json", statuses({"vehicle_id": "v", "report_time": "noon", "status": "x"}))
    problem = card(page, "Failed files").locator(".problem")
    expect(problem.locator(".name")).to_have_text("vehicles_status_1.json")
    expect(problem.locator(".reason")).to_contain_text("expected valid JSON, got a lexical error")
    expect(problem.locator("code").first).to_have_text("python main.py replay failed vehicles_status_1.json")
    expect(page.locator(".notice.warn")).to_contain_text("Failed files wait for a person")
    rejects = card(page, "Rejected records")
    expect(rejects.locator("table.stack td.name")).to_have_text("vehicles_status_2.json")
    expect(rejects).to_contain_text("$.vehicle_status[0].report_time")
    expect(rejects).to_contain_text("python main.py replay rejected --edited rejects.json")
    assert daemon.command("replay", "failed", "--dismiss", "vehicles_status_1.json").returncode == 0
    expect(card(page, "Failed files")).to_contain_text("No failed file waits")


PATHS = ("/", "/fleet", "/fleet?vehicle=vehicle-1")


def load_the_fleet(daemon: Daemon, code: int = 0) -> None:
    for name, content in fleet_files(daemon.folder).items():
        daemon.drop(name, content)
    assert daemon.start("--once", wait=False).wait() == code


def test_the_fleet_is_shown_and_a_vehicle_can_be_chosen(
    daemon: Daemon, dashboard: Dashboard, visit: Begin
) -> None:
    load_the_fleet(daemon)
    page = visit().open(dashboard.url)
    page.get_by_role("link", name="Fleet").click()
    expect(card(page, "Detections").locator("svg")).to_contain_text("pedestrians")
    expect(card(page, "Vehicles").locator("tr", has_text="accident")).to_contain_text("1")
    accident = card(page, "Accidents").locator("tbody tr")
    expect(accident).to_contain_text("7 cars")
    expect(accident).to_contain_text("300 s before")
    range_ = parse_qs(urlsplit(page.url).query)
    card(page, "Busiest vehicles").get_by_role("link", name="vehicle-1").click()
    expect(page.locator("h1, .as-of").first).to_contain_text("Vehicle vehicle-1")
    expect(card(page, "Latest status")).to_contain_text("accident")
    line = card(page, "Time line")
    for word in ("cars", "pedestrians", "trucks", "driving", "status"):
        expect(line.locator("svg")).to_contain_text(word)
    expect(line.locator("tbody tr")).to_have_count(6)
    assert parse_qs(urlsplit(page.url).query) == {**range_, "vehicle": ["vehicle-1"]}


def test_what_is_typed_stays_while_the_answers_come(
    daemon: Daemon, dashboard: Dashboard, visit: Begin, database: Database
) -> None:
    load_the_fleet(daemon)
    with closing(database.connect()) as blocking:
        blocking.cursor().execute("LOCK vehicle_status, objects_detection_events")
        page = visit().open(f"{dashboard.url}/fleet")
        expect(page.get_by_text("Asking the database").first).to_be_visible()
        page.locator("input[name=vehicle]").fill("vehicle-2")
        blocking.rollback()
        expect(card(page, "Busiest vehicles").locator("tbody tr")).not_to_have_count(0)
        expect(page.get_by_text("Asking the database")).to_have_count(0)
    expect(page.locator("input[name=vehicle]")).to_have_value("vehicle-2")


def test_the_form_leads_to_an_address_that_shows_the_same_to_a_colleague(
    daemon: Daemon, dashboard: Dashboard, visit: Begin
) -> None:
    load_the_fleet(daemon)
    page = visit().open(f"{dashboard.url}/fleet")
    page.locator("input[name=since]").fill(ago(hours=6)[:16])
    page.locator("input[name=vehicle]").fill("vehicle-2")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(card(page, "Latest status")).to_contain_text("parking")
    colleague = visit().open(page.url)
    expect(card(colleague, "Latest status")).to_contain_text("parking")
    expect(card(colleague, "Time line").locator("tbody tr")).to_have_count(2)
    expect(colleague.locator("input[name=vehicle]")).to_have_value("vehicle-2")


def test_an_empty_range_leads_to_the_newest_day(daemon: Daemon, dashboard: Dashboard, visit: Begin) -> None:
    load_the_fleet(daemon)
    page = visit().open(f"{dashboard.url}/fleet?since=2020-01-01&until=2020-01-02")
    card(page, "Detections").get_by_role("link", name="show that day").click()
    expect(card(page, "Detections").locator("svg")).to_contain_text("cars")


def test_a_wrong_range_is_explained(dashboard: Dashboard, visit: Begin) -> None:
    page = visit().open(f"{dashboard.url}/fleet?since=yesterday")
    expect(page.locator(".notice.bad")).to_contain_text("since is 'yesterday': it should be a day or a time")


def test_hostile_names_are_shown_as_they_are(daemon: Daemon, dashboard: Dashboard, visit: Begin) -> None:
    """Files, vehicles, types and statuses have names from outside."""
    daemon.drop(f"vehicles_status_{HOSTILE.replace('/', '')}.json", b"no json")
    daemon.drop("a.json", detections(seen(HOSTILE, ago(minutes=90), **{HOSTILE: 3, ":x": 2})))
    daemon.drop("b.json", statuses(
        {"vehicle_id": HOSTILE, "report_time": ago(minutes=80), "status": "accident"},
        {"vehicle_id": HOSTILE, "report_time": ago(minutes=70), "status": HOSTILE},
    ))  # fmt: skip
    assert daemon.start("--once", wait=False).wait() == 1
    page = visit().open(dashboard.url)
    expect(card(page, "Failed files").locator(".name")).to_contain_text(HOSTILE)
    page.get_by_role("link", name="Fleet").click()
    expect(card(page, "Detections").locator("svg")).to_contain_text("<img src=x")
    expect(card(page, "Accidents")).to_contain_text(HOSTILE)
    card(page, "Busiest vehicles").get_by_role("link").click()
    expect(card(page, "Latest status")).to_contain_text(HOSTILE)
    expect(card(page, "Time line").locator("svg")).to_contain_text("<img src=x")
    assert HOSTILE in page.evaluate(_TIPS)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0


#: Shows the tooltip of each series of the first plot, one after the other, and returns their texts.
_TIPS = """async () => {
    const chart = getElement(Number(document.querySelector('.plot').id.slice(1))).chart;
    const texts = [];
    for (let series = 0; series < chart.getOption().series.length; series++) {
        chart.dispatchAction({type: 'showTip', seriesIndex: series, dataIndex: 0});
        await new Promise(resolve => setTimeout(resolve, 200));
        texts.push(...[...document.querySelectorAll('.tip')].map(tip => tip.textContent));
    }
    return texts.join();
}"""


def test_no_request_leaves_the_host(daemon: Daemon, dashboard: Dashboard, visit: Begin) -> None:
    load_the_fleet(daemon)
    begun = visit()
    for path in PATHS:
        page = begun.open(dashboard.url + path)
        expect(page.locator("svg text").first).to_be_visible()
    hosts = {urlsplit(url).netloc for url in begun.asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {f"127.0.0.1:{dashboard.port}"}
    assert dashboard.process is not None
    connections = psutil.Process(dashboard.process.pid).net_connections()
    assert {connection.raddr[0] for connection in connections if connection.raddr} == {"127.0.0.1"}


def test_a_phone_shows_all_without_scrolling_sideways(
    daemon: Daemon, dashboard: Dashboard, visit: Begin
) -> None:
    daemon.drop("vehicles_status_with_a_name_that_is_rather_long_for_a_phone.json", b"no json")
    load_the_fleet(daemon, code=1)
    begun = visit(viewport=PHONE, is_mobile=True, has_touch=True)
    for path in PATHS:
        page = begun.open(dashboard.url + path)
        expect(page.locator("svg text").first).to_be_visible()
        expect(page.get_by_text("Asking the database")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        assert page.evaluate(_STICKS_OUT) == []


_STICKS_OUT = """
    [...document.querySelectorAll('.card, .tile, code, td, input')]
    .filter(element => element.getBoundingClientRect().right > innerWidth)
    .map(element => element.textContent)
"""


def ground(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


@pytest.mark.parametrize(("system", "first", "then"), [("light", 245, 14), ("dark", 14, 245)])
def test_the_theme_follows_the_system_and_can_be_switched(
    dashboard: Dashboard, visit: Begin, system: str, first: int, then: int
) -> None:
    begun = visit(color_scheme=system)
    page = begun.open(dashboard.url)
    button = page.get_by_role("button", name="switch the theme")
    expect(button).to_have_text("theme: auto")
    until(lambda: ground(page).startswith(f"rgb({first},"))
    while button.text_content() != ("theme: dark" if system == "light" else "theme: light"):
        before = button.text_content()
        button.click()
        expect(button).not_to_have_text(str(before))
    until(lambda: ground(page).startswith(f"rgb({then},"))
    begun.open(f"{dashboard.url}/fleet")
    until(lambda: ground(page).startswith(f"rgb({then},"))


def test_the_page_says_that_the_database_is_away_and_recovers(
    daemon: Daemon, dashboard: Dashboard, visit: Begin, server: Server
) -> None:
    daemon.start()
    page = visit().open(dashboard.url)
    expect(page.locator(".about .notice.good")).to_be_visible()
    server.stop()
    try:
        expect(page.locator(".about .notice.bad")).to_contain_text("No answer of the database")
        expect(tile(page, "Database")).to_contain_text("away")
        fleet = visit().open(f"{dashboard.url}/fleet")
        expect(card(fleet, "Vehicles")).to_contain_text("No answer of the database")
    finally:
        server.start("fsync=off")
    expect(page.locator(".about .notice.good")).to_be_visible()


def test_the_token_is_asked_for_once(daemon: Daemon, visit: Begin) -> None:
    token = "the-token-of-a-test"
    dashboard = Dashboard(daemon, DASHBOARD_TOKEN=token).start(wait=False)
    try:
        until(lambda: "Ctrl+C" in dashboard.log(), 90)
        begun = visit()
        page = begun.open(f"{dashboard.url}/fleet?vehicle=v")
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Enter").click()
        expect(card(page, "Latest status")).to_contain_text("never reported")
        begun.open(dashboard.url)
        expect(tile(page, "Waiting")).to_be_visible()
        begun.complaints.clear()  # of the answer 401
    finally:
        dashboard.stop()
