"""Shows what was published of the files of a watch folder, and what needs a person."""

import shlex
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from config import Settings
from processing.counted import counted
from processing.errors import Misconfigured
from processing.printable import printable
from service.marker import FolderStore
from sources.claims import NOTE_ENDING

if TYPE_CHECKING:
    from service.published import Published
    from sinks.kafka_overview import LedgerEntry, TopicSize

#: The marker's ledger begins so, if the files of the folder are published.
_OF_KAFKA = "kafka:"

#: Failed files that are named in a command to type.
_NAMED = 3


def gather(settings: Settings) -> "Published | None":
    """Returns what was published; None if the files of the folder go into a database, or nowhere yet."""
    if settings.bucket is not None:
        return None
    with suppress(Misconfigured):
        marker = FolderStore(settings.folder).read()
        if marker is not None and marker.ledger.startswith(_OF_KAFKA):
            from service.published import look  # with the packages of Kafka, which only this needs

            return look(settings, marker)
    return None


def facts(found: "Published") -> Iterator[tuple[str, str]]:
    """Returns the lines of totals and topics."""
    yield "into", found.place
    if found.ledger is None:
        yield "Kafka", found.trouble
        return
    ledger = found.ledger
    parts = f", {ledger.files_in_parts:,} more in part" if ledger.files_in_parts else ""
    yield "published", counted(ledger.published_files, "file") + parts
    unfixed = "" if found.unfixed is None else f", {len(found.unfixed):,} in the failed folder"
    yield "failed", counted(ledger.failed_files, "file") + unfixed
    yield "records", f"{ledger.read:,} = {ledger.published:,} published + {ledger.rejected:,} rejected"
    for size in found.topics:
        yield "topic", f"{size.topic}, {_size(size)}"


def _size(size: "TopicSize") -> str:
    if not size.partitions:
        return "does not exist"
    opened = f", {size.open:,} of them not committed yet" if size.open else ""
    count = counted(size.partitions, "partition")
    return f"{count}, at most {counted(size.messages, 'message')}{opened}"


def sections(found: "Published") -> Iterator[tuple[str, list[str]]]:
    """Returns the last files and the last failures."""
    if found.ledger is not None:
        yield "last files, UTC", [_formatted(file) for file in found.ledger.last_files]
        yield "last failures, UTC", [_formatted(file) for file in found.ledger.last_failures]


def _formatted(file: "LedgerEntry") -> str:
    counts = f"{file.read:,} = {file.published:,} published + {file.rejected:,} rejected"
    what = file.reason or counts
    return f"{file.committed_at:%Y-%m-%d %H:%M:%S}  {file.state}  {file.name}  {what}"


def needs(found: "Published") -> Iterator[str]:
    """Returns what needs a person."""
    if found.ledger is None:
        yield "Kafka can't be asked"
    if found.unfixed:
        count = counted(len(found.unfixed), "file")
        yield f"{count} in the failed folder: fix and drop again, or remove"


def steps(settings: Settings, found: "Published") -> Iterator[tuple[str, str]]:
    """Returns commands, and what they are for."""
    if found.unfixed:
        names = found.unfixed[:_NAMED]
        paths = " ".join(shlex.quote(printable(str(settings.failed / name))) for name in names)
        notes = " ".join(shlex.quote(printable(f"{settings.failed / name}{NOTE_ENDING}")) for name in names)
        yield f"cat {notes}", "shows what is wrong; fix the files there"
        yield f"mv {paths} {shlex.quote(str(settings.folder))}", "lets the fixed files be published"
