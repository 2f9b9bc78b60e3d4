"""A sink in memory: what a loader needs of a database, for tests and as an example of the port."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import add

from msgspec.structs import astuple

from processing.detection_events import Detection
from processing.errors import TryAgain
from processing.records import Kind, Parsed, Record, Rejected
from processing.sink import Counts, Delivery, FirstReject
from processing.vehicle_status import StatusReport

#: How many fields of a record are its key, the first ones.
KEY_FIELDS: Mapping[type[Record], int] = {Detection: 3, StatusReport: 2}

Key = tuple[object, ...]


@dataclass
class Entry:
    """A file of the ledger, with the records that were rejected."""

    name: str
    state: str
    counts: Counts = field(default_factory=Counts)
    deliveries: int = 1
    reason: str = ""
    rejected: list[Rejected] = field(default_factory=list)
    extra: str | None = None


class MemorySink:
    """Keeps rows by their key, and the ledger by the digest of each file."""

    def __init__(
        self, key_fields: Mapping[type[Record], int] = KEY_FIELDS, max_future_hours: float = 0.0
    ) -> None:
        """Rejects records that are dated more hours ahead of the clock; 0: there is no bound."""
        self.key_fields = key_fields
        self.max_future_hours = max_future_hours
        self.rows: dict[Key, Record] = {}
        self.ledger: dict[bytes, Entry] = {}
        #: Failures of files that could not be read, and so have no digest.
        self.unread: list[Entry] = []

    @contextmanager
    def transaction(self, *, is_hasty: bool = False) -> Iterator["MemoryTransaction"]:
        """Rolls back unless it was committed: until then nothing is written to the sink."""
        yield MemoryTransaction(self)

    def record_failure(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        """Notes that a file can't be loaded; a loaded one stays loaded."""
        known = self.ledger.get(delivery.sha256) if delivery.sha256 else None
        if known is not None:
            known.deliveries += 1
        elif delivery.sha256:
            self.ledger[delivery.sha256] = Entry(delivery.name, "failed", reason=reason)
        else:
            self.unread.append(Entry(delivery.name, "failed", reason=reason))


class MemoryTransaction:
    """Rows of one or more files and their ledger entries, all or nothing."""

    def __init__(self, sink: MemorySink) -> None:
        self._sink = sink
        self._rows: dict[Key, Record] = {}
        self._entries: list[tuple[bytes, Entry]] = []
        self._redelivered: list[Delivery] = []
        self._kind: Kind | None = None

    def loaded(self, digests: Sequence[bytes]) -> set[bytes]:
        """Returns those of the digests that the ledger has as loaded."""
        return {digest for digest in digests if self._is_loaded(digest)}

    def begin_file(self, delivery: Delivery, kind: Kind) -> None:
        """Begins the file to which the elements that follow belong."""
        self._kind = kind
        self._entries.append((delivery.sha256 or b"", Entry(delivery.name, "loaded")))

    def write(self, parsed: Parsed) -> None:
        """Takes one element's records and rejects. Of equal keys the first counts."""
        _, entry = self._entries[-1]
        entry.rejected += parsed.rejected
        inserted = duplicate = 0
        rejects: dict[int, tuple[str, str]] = {}
        hours = self._sink.max_future_hours
        latest = datetime.now(UTC) + timedelta(hours=hours) if hours else None
        for number, record in enumerate(parsed.records):
            values = tuple(getattr(record, name) for name in record.__struct_fields__)
            key = (type(record), *values[: self._sink.key_fields[type(record)]])
            stored = self._rows.get(key) or self._sink.rows.get(key)
            if latest is not None and values[1] > latest:
                rejects[number] = "invalid", f"Expected a time at most {hours:g} hours ahead, got a later one"
            elif stored is None:
                self._rows[key] = record
                inserted += 1
            elif stored == record:
                duplicate += 1
            else:
                rejects[number] = "conflict", f"Expected the stored value, got another: {stored}"
        assert self._kind is not None
        entry.rejected += _rejected(self._kind, parsed, rejects)
        read = len(parsed.records) + len(parsed.rejected)
        rejected = len(parsed.rejected) + len(rejects)
        conflict = sum(reason == "conflict" for reason, _ in rejects.values())
        entry.counts = _sum(entry.counts, Counts(read, inserted, duplicate, rejected, parsed.empty, conflict))

    def keep(self, extra: str) -> None:
        """Keeps the fields beside the file's array."""
        self._entries[-1][1].extra = extra

    def redelivered(self, delivery: Delivery) -> None:
        """Notes that bytes which are loaded already have come again."""
        self._redelivered.append(delivery)

    def finish(self) -> list[Counts]:
        """Returns the counts of the files in the order they began."""
        return [entry.counts for _, entry in self._entries]

    def first_rejects(self) -> list[FirstReject | None]:
        """Returns the first reject of each file, in the order they began."""
        return [_first(entry.rejected) for _, entry in self._entries]

    def commit(self) -> list[Counts]:
        """Makes everything visible at once; raises TryAgain if a file was loaded meanwhile."""
        if any(self._is_loaded(digest) for digest, _ in self._entries):
            raise TryAgain("another transaction has loaded the same file")
        self._sink.rows |= self._rows
        for digest, entry in self._entries:
            if digest in self._sink.ledger:
                entry.deliveries += self._sink.ledger[digest].deliveries
            self._sink.ledger[digest] = entry
        for delivery in self._redelivered:
            self._sink.ledger[delivery.sha256 or b""].deliveries += 1
        return self.finish()

    def _is_loaded(self, digest: bytes) -> bool:
        entry = self._sink.ledger.get(digest)
        return entry is not None and entry.state == "loaded"


def _sum(one: Counts, other: Counts) -> Counts:
    return Counts(*map(add, astuple(one), astuple(other)))


def _first(rejected: list[Rejected]) -> FirstReject | None:
    first = min(rejected, key=lambda reject: reject.position, default=None)
    return FirstReject(first.position, first.path, first.reason) if first else None


def _rejected(kind: Kind, parsed: Parsed, rejects: dict[int, tuple[str, str]]) -> Iterator[Rejected]:
    """Yields a reject for each record that is named by its number, with reason and detail."""
    taken = {rejected.position - parsed.position for rejected in parsed.rejected}
    places = [place for place in range(len(parsed.records) + len(taken)) if place not in taken]
    wanted = [places[number] for number in rejects]
    origins = kind.locate(parsed, wanted)
    for place, found, (path, original) in zip(wanted, rejects.values(), origins, strict=True):
        yield Rejected(parsed.position + place, path, *found, original)
