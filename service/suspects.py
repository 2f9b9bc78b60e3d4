"""Counts how often files failed alone, and decides which of them are poison."""

from collections.abc import Iterable
from dataclasses import dataclass

#: A file over which, alone, a worker died or hung so often is poison.
MAX_CRASHES = 2

#: The same for SIGKILL, which a good file may meet with by chance (a person, another program that eats
#: the memory), but not so often, with growing pauses between; one that eats the memory itself does.
MAX_KILLS = 10

#: A file that failed alone so often, while the database answered and took others meanwhile, is poison.
MAX_STRIKES = 4

#: The same if there were no others to tell by: then only a probe says that the database is well.
MAX_LONE_STRIKES = 10

#: A file that meets alone so often with a setback, while others load, is held back from them.
MAX_SETBACKS = 3


@dataclass
class _Record:
    """Counts of what happened while a file was the only one of its batch.

    strikes and lone: it failed though the database answered, with or without others that were loaded since
    the time before. seen is how many batches had been loaded by then.
    """

    crashes: int = 0
    kills: int = 0
    strikes: int = 0
    lone: int = 0
    setbacks: int = 0
    seen: int | None = None
    reason: str = ""


class Suspects:
    """The records of files that were not loaded; those of others are forgotten."""

    def __init__(self, max_strikes: int = MAX_STRIKES, max_lone_strikes: int = MAX_LONE_STRIKES) -> None:
        self._max_strikes = max_strikes
        self._max_lone_strikes = max_lone_strikes
        self._records: dict[str, _Record] = {}
        self._loaded = 0

    def note_loaded(self) -> None:
        """A batch was committed: evidence that the database was well."""
        self._loaded += 1

    def count_crash(self, name: str, reason: str, *, is_killed: bool) -> None:
        record = self._record(name)
        record.reason = reason
        if is_killed:
            record.kills += 1
        else:
            record.crashes += 1

    def count_strike(self, name: str, reason: str) -> None:
        record = self._record(name)
        record.reason = reason
        if self._others_were_loaded(record):
            record.strikes += 1
        else:
            record.lone += 1

    def count_setback(self, name: str, *, is_alone: bool) -> bool:
        """Counts a setback (alone: only if others were loaded meanwhile); returns if it is held back."""
        record = self._record(name)
        if self._others_were_loaded(record) or not is_alone:
            record.setbacks += 1
        return record.setbacks >= MAX_SETBACKS

    def verdict(self, name: str) -> str | None:
        """Returns why the file is poison, or None."""
        record = self._records.get(name, _Record())
        if record.crashes >= MAX_CRASHES or record.kills >= MAX_KILLS:
            return f"{record.reason}; {record.crashes + record.kills} times, with this file alone"
        failures = record.strikes + record.lone
        if record.strikes >= self._max_strikes:
            return f"{record.reason}; {failures} times, with this file alone, while others were loaded"
        if failures >= self._max_lone_strikes:
            return f"{record.reason}; {failures} times, with this file alone, while the database answered"
        return None

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._records.pop(name, None)

    def _record(self, name: str) -> _Record:
        return self._records.setdefault(name, _Record())

    def _others_were_loaded(self, record: _Record) -> bool:
        """Returns whether others were loaded since the last call for this record."""
        seen, record.seen = record.seen, self._loaded
        return seen is not None and seen < self._loaded
