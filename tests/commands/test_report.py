"""The report is one page that needs nothing else, and shows what the fleet did."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.monitor.dashboard.support import ago, fleet_files, seen
from tests.support import Daemon, detections

HOSTILE = "</text></svg><script>window.hacked=1</script>"


class _Asked(HTMLParser):
    """What a page would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = ("src", "href", "xlink:href", "srcset", "data")
        self.asked += [(tag, name, value) for name, value in attributes if name in names or name[:2] == "on"]
        self.asked += [tag] if tag in ("script", "link", "iframe", "object", "img") else []


def asked_by(page: str) -> list[Any]:
    parser = _Asked()
    parser.feed(page)
    return parser.asked


@pytest.fixture
def loaded(daemon: Daemon) -> Daemon:
    for name, content in fleet_files(daemon.folder).items():
        daemon.drop(name, content)
    daemon.drop("hostile.json", detections(seen(HOSTILE, ago(minutes=30), **{HOSTILE: 1})))
    assert daemon.start("--once", wait=False).wait() == 0
    return daemon


@pytest.mark.parametrize("vehicle", [None, "vehicle-1", HOSTILE])
def test_a_report_needs_no_network_and_runs_no_script(loaded: Daemon, vehicle: str | None) -> None:
    chosen = [] if vehicle is None else ["--vehicle", vehicle]
    done = loaded.command("report", *chosen)
    assert (done.returncode, done.stderr) == (0, "")
    page = (loaded.folder / "report.html").read_text()
    assert asked_by(page) == []
    assert "url(" not in page and "@import" not in page
    assert page.count("<svg") == 2
    assert len(page) < 200_000


def test_a_report_shows_what_the_page_shows(loaded: Daemon) -> None:
    since = ago(hours=7)[:16]
    done = loaded.command("report", "--since", since, "--out", "out.html")
    assert re.fullmatch(rf"out.html: {since.replace('T', ' ')} to .* UTC \(.*\), \d+ kB\n", done.stdout)
    page = (loaded.folder / "out.html").read_text()
    for word in ("The fleet", "pedestrians", "7 cars", "300 s before", "accident", "parking", "vehicle-2"):
        assert word in page


def test_a_report_can_be_seen_and_printed(loaded: Daemon, browser: Browser) -> None:
    assert loaded.command("report", "--vehicle", "vehicle-1").returncode == 0
    page = browser.new_page()
    try:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((loaded.folder / "report.html").as_uri())
        assert page.locator("svg").count() == 2
        assert page.locator("svg").first.bounding_box()["width"] > 600  # type: ignore[index]
        assert asked == [(loaded.folder / "report.html").as_uri()]
        assert page.pdf().startswith(b"%PDF")
    finally:
        page.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--since", "x"], "since is 'x': it should be a day or a time"),
        (["--since", "2026-01-02", "--until", "2026-01-02"], "until has to be later than since"),
        (["--out", "no/such/folder/x.html"], "can't write no/such/folder/x.html: No such file or directory"),
    ],
)
def test_a_report_that_can_not_be_written_is_one_sentence(
    daemon: Daemon, words: list[str], message: str
) -> None:
    daemon.command("sql", "select 1")
    done = daemon.command("report", *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"error: {message}")


def test_an_empty_range_is_said(daemon: Daemon) -> None:
    done = daemon.command("report", "--since", "2020-01-01", "--until", "2020-01-02")
    assert done.returncode == 0
    assert "There are no detections yet." in (daemon.folder / "report.html").read_text()
