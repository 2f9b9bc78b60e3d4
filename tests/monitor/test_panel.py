"""The panel at each width: nothing is wider than the terminal, and what matters most comes first."""

import io

import pytest
from msgspec.structs import replace
from rich.cells import cell_len
from rich.console import Console

from monitor.panel import duration, panel
from monitor.tally import LargeFile, View, Work

LARGE = LargeFile("objects_detection_1654462954.json", 103_000_000, 54_000_000, 182_300.0, 4)
BUSY = View(
    folder="incoming",
    place="db.example.org:5432/fleet",
    seconds=7423,
    large=(LARGE, replace(LARGE, file="a.json", read_bytes=0, seconds_left=None)),
    backlog=Work(12_340, 7_660, 5),
    ready=7_660,
    waiting=3,
    files_per_second=2310.2,
    rows_per_second=27_720,
    loaded=12_345,
    rows=148_140,
    duplicate=3,
    rejected=2,
    failed=1,
    observer="native",
    workers=2,
    busy=2,
)
IDLE = View(folder="incoming", place="embedded PostgreSQL in data", observer="native", workers=2)
AWAY = replace(IDLE, troubles={"database": "connection to server at 127.0.0.1 failed: Connection refused"})


def rendered(view: View, width: int, **options: bool) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False, **options)  # type: ignore[arg-type]
    with console.capture() as captured:
        console.print(panel(view, width))
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize("view", [BUSY, IDLE, AWAY, View()], ids=["busy", "idle", "away", "starting"])
@pytest.mark.parametrize("width", range(20, 161, 7))
def test_no_line_is_wider_than_the_terminal_and_the_head_fills_it(view: View, width: int) -> None:
    lines = rendered(view, width)
    assert max(map(cell_len, lines)) <= width
    assert cell_len(lines[0]) == width and lines[0].startswith("── ")
    labels = [line.split()[0] for line in lines[1:] if line[0] != " "]
    assert labels[:4] == ["state", "total", "now", "backlog"]


def test_a_wide_terminal_shows_everything() -> None:
    assert rendered(BUSY, 90) == [
        "── incoming → db.example.org:5432/fleet ───────────────────────────────────── 2 h 03 min ─",
        "state     database ok   observer native   workers 2 of 2 busy   3 files not ready",
        "total     12,345 files   148,140 rows   3 duplicate files   2 rejects   1 failed file",
        "now       2,310 files/s   27,720 rows/s",
        "backlog               ━━━━━━━━━━━━━╸          61 %              7,660 files to go 5 s left",
        "objects_detection_16… ━━━━━━━━━━━╸            52 % 54 of 103 MB    182,300 rows/s 4 s left",
        "a.json                                         0 %  0 of 103 MB    182,300 rows/s",
    ]


def test_40_columns_show_what_matters() -> None:
    assert rendered(BUSY, 39) == [
        "── incoming →…5432/fleet ─ 2 h 03 min ─",
        "state     database ok   observer native",
        "          workers 2 of 2 busy",
        "          3 files not ready",
        "total     12,345 files   148,140 rows",
        "          3 duplicate files   2 rejects",
        "          1 failed file",
        "now       2,310 files/s   27,720 rows/s",
        "backlog   ━━━━━━━━╸       61 % 5 s left",
        "objects_… ━━━━━━━         52 % 4 s left",
        "a.json                     0 %",
    ]


def test_more_than_four_large_files_are_counted() -> None:
    lines = rendered(replace(BUSY, large=(LARGE,) * 7), 100)
    assert len([line for line in lines if line.startswith("objects_")]) == 4
    assert lines[-1].strip() == "and 3 more large files"


def test_what_does_not_work_is_red_and_said() -> None:
    (line,) = [line for line in rendered(AWAY, 100, force_terminal=True) if "Connection refused" in line]
    assert "\x1b[1;31mdatabase: connection to server" in line


def test_colour_is_only_where_it_means_something() -> None:
    text = "\n".join(rendered(IDLE, 100, force_terminal=True))
    assert not any(f"\x1b[{more}3{colour}m" in text for more in ("", "1;") for colour in range(1, 7))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (61, "1 min 01 s"),
        (600, "10 min"),
        (3720, "1 h 02 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_a_duration_has_two_units(seconds: int, shown: str) -> None:
    assert duration(seconds) == shown
