"""Lists the files in the folder: the scan is the truth, events are only hints."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

ENDINGS = (".json", ".json.gz", ".json.zst")

#: Endings of files that a program is still writing, and renames then.
UNFINISHED = (".tmp", ".part", ".partial", ".filepart", ".crdownload")


@dataclass(frozen=True)
class Listing:
    """The sorted names in a folder that are not hidden: files to load, and files and folders that are not."""

    wanted: list[str]
    ignored: list[str]


def is_wanted(name: str) -> bool:
    """Returns whether a file of this name is to be loaded; a file still being written has another name."""
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def listing(folder: str) -> Listing:
    """Lists the folder; raises OSError if that can't be done."""
    wanted: list[str] = []
    ignored: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_wanted(entry.name) and not entry.is_dir(follow_symlinks=False):
                wanted.append(entry.name)
            elif not entry.name.startswith("."):
                ignored.append(entry.name)
    return Listing(sorted(wanted), sorted(ignored))


def waiting(folder: str) -> list[str]:
    """Returns the sorted names of the files to load; raises OSError if the folder can't be listed."""
    return listing(folder).wanted


def with_status(folder: str, names: Iterable[str]) -> list[tuple[str, os.stat_result]]:
    """Returns the files of a folder with their status, but those that are gone; raises other OSErrors."""
    found = []
    for name in names:
        with suppress(FileNotFoundError):
            found.append((name, os.lstat(os.path.join(folder, name))))
    return found
