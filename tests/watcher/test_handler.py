"""Each event becomes a wake-up with the current name of the file."""

import os

import pytest
from watchdog.events import FileClosedEvent, FileCreatedEvent, FileMovedEvent, FileSystemEvent

from watcher.handler import Handler


@pytest.mark.parametrize(
    ("event", "names"),
    [
        (FileCreatedEvent("/in/a.json"), ["a.json"]),
        (FileClosedEvent("/in/a.json.gz"), ["a.json.gz"]),
        (FileMovedEvent("/in/.a.json.Xy12", "/in/a.json"), ["a.json"]),
        (FileMovedEvent("", "/in/a.json"), ["a.json"]),
        (FileMovedEvent("/in/a.json", "/in/a.json.part"), []),
        (FileCreatedEvent("/in/a.json.part"), []),
        (FileCreatedEvent("/in/.a.json"), []),
        (FileCreatedEvent(b"/in/a\xff.json"), [os.fsdecode(b"a\xff.json")]),
        (FileMovedEvent(b"/in/x", b"/in/\xfe.json"), [os.fsdecode(b"\xfe.json")]),
    ],
)
def test_an_event_becomes_a_name(event: FileSystemEvent, names: list[str]) -> None:
    heard: list[str] = []
    Handler(heard.append).on_any_event(event)
    assert heard == names
