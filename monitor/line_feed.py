"""Turns events into the lines that a person reads at a terminal; many of the same kind become one."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from config import LogLevel
from monitor.event_log import Line, lines
from monitor.panel import duration
from monitor.tally import LOADED, Wording
from processing.batch import Outcome
from processing.counted import counted, noun
from processing.printable import printable
from service import events
from service.events import Event

#: Loaded files that are named one by one in one turn; if there are more, they are counted.
NAMED_FILES = 5

#: How long loaded files are counted before a line says how many; less if no more come for a while.
SUMMARY_SECONDS, PAUSE_SECONDS = 5.0, 1.5

_RANKS = {LogLevel.INFO: 0, LogLevel.WARNING: 1, LogLevel.ERROR: 2}
_STYLES = {"info": "", "warning": "yellow", "error": "bold red"}

_QUIET = events.FileLoaded | events.FileDuplicate


class LineFeed:
    """The lines of events. A warning or an error always has a line of its own."""

    def __init__(self, level: LogLevel, wording: Wording = LOADED) -> None:
        self._level = level
        self._wording = wording
        self._files = self._rows = self._duplicates = 0
        self._since: float | None = None
        self._last = 0.0

    def lines(self, taken: Sequence[tuple[float, Event | Line]], now: float) -> list[Text]:
        """Returns the lines of what came since the last turn, after the sum of turns before if it is due."""
        quiet = [at for at, event in taken if _is_quiet(event)]
        is_over = not quiet and now - self._last >= PAUSE_SECONDS
        shown = list(self._sum_due(now, is_over=is_over))
        is_many = len(quiet) > NAMED_FILES or self._since is not None
        if quiet:
            self._last = now
        for at, event in taken:
            if is_many and _is_quiet(event):
                self._add(event, at)
                continue
            for level, name, fields in [event] if isinstance(event, tuple) else lines(event):
                if is_shown(level, self._level):
                    shown.append(text(at, level, words(name, fields, event, self._wording)))
        return shown

    def rest(self, now: float) -> list[Text]:
        """Returns the sum that is not yet told."""
        return list(self._sum_due(now, is_over=True))

    def _add(self, event: object, at: float) -> None:
        assert isinstance(event, _QUIET)
        if self._since is None:
            self._since = at
        is_new = isinstance(event, events.FileLoaded)
        self._files += is_new
        self._duplicates += not is_new
        self._rows += event.outcome.counts.inserted

    def _sum_due(self, now: float, *, is_over: bool) -> Iterator[Text]:
        if self._since is None or not (is_over or now - self._since >= SUMMARY_SECONDS):
            return
        duplicates = f", {counted(self._duplicates, 'duplicate file')}" if self._duplicates else ""
        if is_shown("info", self._level):
            files = f"{counted(self._files, 'file')} {self._wording.done}"
            yield text(now, "info", f"{files}, {counted(self._rows, self._wording.unit)}{duplicates}")
        self._files = self._rows = self._duplicates = 0
        self._since = None


def summary(event: events.Stopped, seconds: float, folder: str, wording: Wording = LOADED) -> list[Text]:
    """Returns the two last lines: what was done, and what to do next."""
    totals = {
        "loaded": ("file", f" {wording.done}"),
        "rows": (wording.unit, ""),
        "duplicate": ("duplicate file", ""),
        "rejected": ("rejected record", ""),
        "failed": ("failed file", ""),
    }
    counts = {name: event.totals.get(name, 0) for name in totals}
    parts = [
        f"{counted(counts[name], what)}{more}"
        for name, (what, more) in totals.items()
        if counts[name] or name in _ALWAYS
    ]
    first = f"stopped after {duration(int(seconds))}: {', '.join(parts)}"
    waiting = event.totals.get("waiting", 0)
    waits = (
        f"{counted(waiting, 'file')} {noun(waiting, 'waits', 'wait')} in {folder}"
        if folder and waiting
        else "no file waits"
    )
    shows = "what failed" if counts["failed"] else "all totals"
    return [Text(first), Text(f"{waits}; python main.py status shows {shows}")]


_ALWAYS = ("loaded", "rows")


def _is_quiet(event: object) -> bool:
    """Returns whether nobody needs to know this file by its name."""
    return isinstance(event, _QUIET) and not (event.outcome.reason or event.outcome.counts.rejected)


def is_shown(level: str, least: LogLevel) -> bool:
    """Returns whether lines of a level are shown, if this is the least that are."""
    return _RANKS[LogLevel(level)] >= _RANKS[least]


def text(at: float, level: str, words: str) -> Text:
    """Returns a line with its time and, if it is no mere information, its level."""
    style = _STYLES[level]
    line = Text(time.strftime("%H:%M:%S ", time.localtime(at)), "dim")
    if level != "info":
        line.append(f"{level} ", f"not dim {style}")
    return line.append(words, f"not dim {style}" if level == "error" else "not dim")


def words(name: str, fields: dict[str, Any], event: object, wording: Wording = LOADED) -> str:
    """Returns the line of an event without its time and level: its fields, and last the reason."""
    match event:
        case events.FileLoaded(outcome) | events.FileDuplicate(outcome):
            done = wording.done if isinstance(event, events.FileLoaded) else name
            said = f"{done} {printable(outcome.name)}: {_counts(outcome, wording)}"
            return f"{said}; {fields['reason']}" if outcome.reason else said
        case events.FileFailed(outcome):
            moved = f" (moved to {fields['moved_to']})" if outcome.target else ""
            return f"{name} {printable(outcome.name)}: {outcome.reason}{moved}"
    own = [f"{key}={value}" for key, value in fields.items() if key not in _BARE]
    bare = [str(fields[key]) for key in ("file", "message") if key in fields]
    reason = "; ".join(str(fields[key]) for key in _LAST if key in fields)
    return " ".join([name, *bare, *own]) + (f": {reason}" if reason else "")


#: Fields whose value says all: at the end of the line, and at its beginning.
_LAST = ("place", "with_command", "reason", "advice", "next")
_BARE = ("file", "message", *_LAST)


def _counts(outcome: Outcome, wording: Wording) -> str:
    counts = outcome.counts
    if outcome.state == "duplicate" and not counts.read:
        return f"its bytes are {wording.done} already"
    parts = [counted(counts.inserted, wording.unit)]
    if counts.duplicate:
        parts.append(f"{counts.duplicate:,} duplicate")
    if counts.rejected:
        first = outcome.first_reject
        where = f" (first: {first.reason} at {printable(first.path)[:100]})" if first else ""
        parts.append(f"{counts.rejected:,} rejected{where}")
    return ", ".join(parts)
