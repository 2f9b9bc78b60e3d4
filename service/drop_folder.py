"""The watch folder as any process sees it: which files wait in it, for how long, and why."""

import math
import os
import stat
import time

from msgspec import Struct

import watcher.scan
from config import Settings
from processing.errors import BadFile, Gone, Misconfigured, NotReady, SourceUnavailable
from processing.printable import printable
from service.kept_client import KeptClient
from sources.peek import PeekSource
from sources.policy import BucketPlace

#: A file that waits for longer needs a person; a daemon that is busy with a backlog may take a while.
LONG_SECONDS = 3600


class Waiting(Struct, frozen=True):
    """A file in the watch folder, and why it can't be read now, if it can't."""

    name: str
    bytes: int
    seconds: float
    reason: str


class Backlog(Struct, frozen=True):
    """The files in the watch folder, the oldest by themselves; error says why the folder can't be listed.

    has_more: not all of a large bucket was looked at.
    """

    folder: str
    error: str = ""
    files: int = 0
    bytes: int = 0
    oldest_seconds: float | None = None
    oldest: list[Waiting] = []
    not_looked_at: list[str] = []
    has_more: bool = False


class Looker:
    """Looks at the watch folder, or at the bucket."""

    def __init__(self, settings: Settings, client: KeptClient) -> None:
        """Looks at nothing."""
        self._settings = settings
        self._client = client

    def look(self, shown: int, asked_after: float = 0.0) -> Backlog:
        """Returns what waits, `shown` of the oldest files by themselves.

        Opens those in a folder that have waited for more than `asked_after` seconds, to learn why they wait:
        in that instant a daemon finds them locked.
        """
        if self._settings.bucket is None:
            return _look_at_folder(self._settings, shown, asked_after)
        return self._look_at_bucket(self._settings.bucket, shown)

    def _look_at_bucket(self, place: BucketPlace, shown: int) -> Backlog:
        from service.bucket_discovery import Place
        from service.drop_bucket import count

        try:
            found = count(self._client.get(), Place.of(place, self._settings.bucket_ends), max(1, shown))
        except (SourceUnavailable, Misconfigured) as error:
            return Backlog(printable(str(place)), str(error))
        return Backlog(
            printable(str(place)),
            "",
            found.files,
            found.bytes,
            found.oldest[0].seconds if found.oldest else None,
            [Waiting(printable(one.name), one.bytes, one.seconds, "") for one in found.oldest[:shown]],
            has_more=found.has_more,
        )


def _look_at_folder(settings: Settings, shown: int, asked_after: float) -> Backlog:
    folder = str(settings.folder)
    if not settings.watches:
        return Backlog(printable(folder))
    try:
        found = watcher.scan.listing(folder)
        files = watcher.scan.with_status(folder, found.wanted)
    except OSError as error:
        return Backlog(printable(folder), error.strerror or str(error))
    # The time of change, too: a file keeps the time of its content when it is moved here.
    now = time.time()
    ages = {name: now - max(status.st_mtime, status.st_ctime) for name, status in files}
    sizes = {name: status.st_size for name, status in files}
    oldest = sorted(ages, key=lambda name: -ages[name])[:shown]
    reasons = {name: _why(folder, name) if ages[name] > asked_after else "" for name in oldest}
    own = settings.own_names
    return Backlog(
        printable(folder),
        "",
        len(files),
        sum(sizes.values()),
        max(ages.values(), default=None),
        [Waiting(printable(name), sizes[name], ages[name], reasons[name]) for name in oldest],
        [printable(name) for name in found.ignored if name not in own],
    )


def measure(folder: str) -> Backlog:
    """Returns how much waits in the watch folder; cheap enough to be asked all the time."""
    files = size = 0
    oldest = math.inf
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not watcher.scan.is_wanted(entry.name):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISDIR(status.st_mode):
                    files += 1
                    size += status.st_size
                    oldest = min(oldest, max(status.st_mtime, status.st_ctime))
    except OSError as error:
        return Backlog(printable(folder), error.strerror or str(error))
    age = time.time() - oldest if files else None
    return Backlog(printable(folder), files=files, bytes=size, oldest_seconds=age)


def _why(folder: str, name: str) -> str:
    """Returns why the daemon can't read a file now."""
    try:
        with PeekSource(folder).open(name):
            return ""
    except (NotReady, BadFile) as error:
        return str(error)
    except Gone:
        return "it is gone by now"
