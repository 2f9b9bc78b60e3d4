"""Shows what was published of the files of a watch folder, and what needs a person."""

import shlex
from collections.abc import Iterator

from config import Settings
from processing.counted import counted
from processing.printable import printable
from service.published import Published
from sources.claims import NOTE_ENDING

#: Failed files that are named in a command to type.
_NAMED = 3


def facts(found: Published) -> Iterator[tuple[str, str]]:
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
        yield "topic", str(size)


def sections(found: Published) -> Iterator[tuple[str, list[str]]]:
    """Returns the last files and the last failures."""
    if found.ledger is not None:
        yield "last files, UTC", list(map(str, found.ledger.last_files))
        yield "last failures, UTC", list(map(str, found.ledger.last_failures))


def needs(found: Published) -> Iterator[str]:
    """Returns what needs a person."""
    if found.ledger is None:
        yield "Kafka can't be asked"
    if found.unfixed:
        count = counted(len(found.unfixed), "file")
        yield f"{count} in the failed folder: fix and drop again, or remove"


def steps(settings: Settings, found: Published) -> Iterator[tuple[str, str]]:
    """Returns commands, and what they are for."""
    if found.unfixed and settings.bucket is None:
        names = found.unfixed[:_NAMED]
        paths = " ".join(shlex.quote(printable(str(settings.failed / name))) for name in names)
        notes = " ".join(shlex.quote(printable(f"{settings.failed / name}{NOTE_ENDING}")) for name in names)
        yield f"cat {notes}", "shows what is wrong; fix the files there"
        yield f"mv {paths} {shlex.quote(str(settings.folder))}", "lets the fixed files be published"
