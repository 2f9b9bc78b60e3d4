"""Lists the files in the folder: the scan is the truth, events are only hints."""

import os
from contextlib import suppress

ENDINGS = (".json", ".json.gz", ".json.zst")


def is_wanted(name: str) -> bool:
    """Returns whether a file of this name is to be loaded; a file still being written has another name."""
    return name.endswith(ENDINGS) and not name.startswith(".")


def waiting(folder: str) -> list[str]:
    """Returns the sorted names of the files to load; raises OSError if the folder can't be listed."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_wanted(entry.name) and not _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def waiting_files(folder: str) -> list[tuple[str, os.stat_result]]:
    """Returns the files to load with their status; raises OSError if the folder can't be listed."""
    found = []
    for name in waiting(folder):
        with suppress(FileNotFoundError):
            found.append((name, os.lstat(os.path.join(folder, name))))
    return found


def not_looked_at(folder: str) -> list[str]:
    """Returns the sorted names of files and folders that are neither hidden nor to be loaded."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and (_is_folder(entry) or not is_wanted(entry.name))
        )
