"""Ends of a claimed file: deleted, archived, or put into the failed folder with a note of the reason."""

import os
from contextlib import suppress
from datetime import UTC, datetime

from msgspec import Struct

from sources.claims import MAX_NAME, NOTE_ENDING, move, names_like
from sources.policy import OnLoaded


class Disposal(Struct, frozen=True):
    """The folders that the files of a folder end in, and what the settings say of them."""

    folder: str
    failed: str
    archive: str
    on_loaded: OnLoaded

    def remove(self, claimed: str, name: str) -> None:
        """Deletes or archives a file whose rows are committed."""
        if self.folder == self.failed:
            # A replay. The note goes first, so that a kill in between leaves the file, not the note.
            _remove_note(os.path.join(self.folder, name))
        if self.on_loaded is OnLoaded.ARCHIVE:
            move(claimed, self._archive_of_today(), name)
        else:
            os.unlink(claimed)

    def _archive_of_today(self) -> str:
        """Returns the folder of the UTC day in the archive, so that old days can be removed as a whole."""
        folder = os.path.join(self.archive, f"{datetime.now(UTC):%Y-%m-%d}")
        with suppress(FileExistsError):
            os.mkdir(folder)
        return folder

    def quarantine(self, claimed: str, name: str, reason: str) -> str:
        """Moves a bad file into the failed folder, a note beside it; returns its path there."""
        os.makedirs(self.failed, exist_ok=True)
        fits = len(os.fsencode(name)) <= MAX_NAME
        target = move(claimed, self.failed, name if fits else next(names_like(name)))
        try:
            # Both folders last: after a power cut, the file has one of its names or both, never none.
            _write_note(target, reason)
            _sync_folder(self.failed)
            _sync_folder(self.folder)
        except OSError:
            _take_back(target, claimed)
            raise
        return target


def _write_note(target: str, reason: str) -> None:
    """Writes the reason beside the file, for readers who have only the folder and not the ledger."""
    with open(target + NOTE_ENDING, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(reason + "\n")
        file.flush()
        os.fsync(file.fileno())


def _take_back(target: str, path: str) -> None:
    """Undoes a quarantine; the note may be half-written."""
    os.rename(target, path)
    with suppress(OSError):
        _remove_note(target)


def _remove_note(target: str) -> None:
    """Removes the note, if there is one."""
    with suppress(FileNotFoundError):
        os.unlink(target + NOTE_ENDING)


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
