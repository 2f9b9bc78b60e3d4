"""The live view of a consumer of topics: its lines, and the panel at each width."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from config import LogLevel
from monitor.stream_show import StreamShow
from service import events, stream_events
from service.events import Event, Resource
from service.stream_events import LagMeasured, PartitionLag
from tests.monitor.test_stream_log import LOADED, SAMPLES

STARTED = stream_events.ConsumerStarted(
    "h:9092", "g", ["fleet.a", "fleet.b"], None, None, "postgresql://u:secret@h:1/d"
)
LAGS = LagMeasured([PartitionLag("fleet.a", 0, 40, 7), PartitionLag("fleet.a", 1, 50, 0, 3, 9.0)])


def rendered(width: int, *taken: Event) -> list[str]:
    """The panel after these events."""
    show = StreamShow(LogLevel.INFO)
    for event in taken:
        show.take(event, 1.0)
    console = Console(file=io.StringIO(), width=width, highlight=False)
    with console.capture() as captured:
        console.print(show.panel(show.view(1.0), width))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_it_shows_what_was_loaded_and_what_is_left() -> None:
    lines = rendered(100, STARTED, LOADED, LAGS)
    assert lines[0].startswith("── fleet.a, fleet.b → h:1/d ──") and "secret" not in lines[0]
    assert lines[1:] == [
        "state     database ok   Kafka ok",
        "total     3 messages   0 rows   0 duplicates   3 rejects",
        "now       3.0 messages/s   0 rows/s",
        "lag       7 messages   fleet.a, 2 partitions   3 blocked by an open transaction",
    ]


def test_it_shows_outages_pauses_and_that_nothing_is_read() -> None:
    away = events.OutageBegan(Resource.BROKER, "refused")
    lines = rendered(100, STARTED, away, stream_events.ReadingPaused(5.0))
    assert lines[1] == "state     database ok   Kafka: refused   paused: the database takes long"
    assert lines[4] == "lag       no partition is read"
    over = events.OutageEnded(Resource.BROKER, 1.0)
    lines = rendered(100, STARTED, away, over)
    assert lines[1] == "state     database ok   Kafka ok"


@pytest.mark.parametrize("width", [20, 39, 79, 140])
@pytest.mark.parametrize("taken", [[], [STARTED, LOADED, LAGS]], ids=["starting", "loading"])
def test_no_line_is_wider_than_the_terminal(width: int, taken: list[Event]) -> None:
    lines = rendered(width, *taken)
    assert max(map(cell_len, lines)) <= width and cell_len(lines[0]) == width


def test_each_event_has_the_line_that_the_log_has_in_words() -> None:
    show = StreamShow(LogLevel.WARNING)
    told = [line.plain[9:] for line in show.lines([(1.0, event) for event in SAMPLES], 1.0)]
    assert "warning blocked by an open transaction partition=t/0 offset=4 waiting=2" in told
    assert not any(line.startswith("reading partitions") for line in told)
