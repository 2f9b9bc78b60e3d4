"""The events that the native observer asks inotify for."""

import sys
from pathlib import Path

import pytest
from watchdog.events import FileSystemEventHandler
from watchdog.observers.inotify import InotifyEmitter
from watchdog.observers.inotify_c import InotifyConstants

from watcher.handler import EVENTS
from watcher.inotify import ArrivalsObserver


@pytest.mark.skipif(sys.platform != "linux", reason="needs inotify, which only Linux has")
def test_files_that_leave_are_not_waited_for(tmp_path: Path) -> None:
    observer = ArrivalsObserver()
    observer.schedule(FileSystemEventHandler(), str(tmp_path), event_filter=EVENTS)
    observer.start()
    (emitter,) = observer.emitters
    assert isinstance(emitter, InotifyEmitter)
    asked = emitter.get_event_mask_from_filter()
    observer.stop()
    observer.join()
    assert not asked & InotifyConstants.IN_MOVED_FROM
    assert asked & InotifyConstants.IN_MOVED_TO and asked & InotifyConstants.IN_CLOSE_WRITE
