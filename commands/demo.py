"""Writes the files of a simulated fleet into the watch folder, so that anyone can see the system work."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count as count_up
from pathlib import Path
from typing import Protocol

from msgspec import Struct, json

from commands.demo_fleet import Clock, Fleet
from config import Settings
from processing.counted import counted
from processing.errors import Misconfigured


class Target(Protocol):
    """The place that the demo writes to."""

    def __str__(self) -> str:
        """Returns its path or address."""

    def prepare(self) -> None:
        """Makes it, if need be."""

    def place(self, name: str, content: bytes) -> None:
        """Puts a file there, whole."""


class FolderTarget(Struct, frozen=True):
    """A folder, which is made if there is none."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def place(self, name: str, content: bytes) -> None:
        """Writes a file under a hidden name and renames it when complete, so that nobody reads a part."""
        hidden = self.folder / f".{name}.tmp"
        try:
            hidden.write_bytes(content)
            hidden.rename(self.folder / name)
        finally:
            hidden.unlink(missing_ok=True)


def target_of(settings: Settings) -> Target:
    """Returns the place where the settings' files arrive."""
    if settings.bucket is None:
        return FolderTarget(settings.folder)
    from commands.demo_bucket import BucketTarget  # with a package that only a bucket needs

    return BucketTarget.of(settings, settings.bucket)


def run(
    target: Target, *, rate: float, count: int | None, records: int, vehicles: int, seed: int | None,
    stop: threading.Event, report: Callable[[str], None],
) -> int:  # fmt: skip
    """Writes `rate` files a second (0: as fast as possible) until `count` or `stop`; returns their number."""
    fleet = Fleet(seed, vehicles, recent(rate, count, records))
    many = "files" if count is None else counted(count, "file")
    pace = f"{rate:g} a second" if rate else "as fast as possible"
    written, started = 0, time.monotonic()
    try:
        target.prepare()
        report(f"Writing {many} of {counted(records, 'record')} into {target}, {pace}; Ctrl+C stops.")
        with suppress(KeyboardInterrupt):
            for number in numbers(rate, count, stop):
                target.place(*compose(fleet, number, records))
                written += 1
    except OSError as error:
        why = "a file is in its place" if isinstance(error, FileExistsError) else error.strerror
        raise Misconfigured(f"Can't write into the folder {target}: {why}.") from error
    seconds = time.monotonic() - started
    what = f"{counted(written, 'file')} with {counted(written * records, 'record')}"
    report(f"Wrote {what} in {seconds:.1f} seconds.")
    return written


def recent(rate: float, count: int | None, records: int) -> Clock:
    """Returns the clock of a fleet.

    A backlog, or the files of the first minute, cover the last day; later files follow the present time.
    """
    if not rate and count is None:
        raise Misconfigured("Without a rate the demo needs a count of files.")
    wanted = [int(60 * rate)] if rate else []
    files = max(1, min(wanted if count is None else [*wanted, count]))
    duration = (files - 1) / rate if rate else 0
    return Clock(int(1000 * (time.time() + duration)), files * records, 1000 / rate / records if rate else 0)


def numbers(rate: float, count: int | None, stop: threading.Event) -> Iterator[int]:
    """Yields the number of each file when the file is due."""
    due = time.monotonic()
    for number in count_up() if count is None else range(count):
        if stop.wait(max(0, due - time.monotonic())):
            return
        yield number
        # A delay of up to a second is caught up; catching up a longer one would make a burst of files.
        due = max(due + 1 / rate, time.monotonic() - 1) if rate else due


def compose(fleet: Fleet, number: int, records: int) -> tuple[str, bytes]:
    """Returns name and content of a file; every third file holds statuses."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}_{number}.json"
    if number % 3 == 1:
        return f"vehicles_status_{name}", json.encode(fleet.statuses(records))
    return f"objects_detection_{name}", json.encode(fleet.detections(records))
