"""What is waiting in the folder now: the truth, of which events are only hints."""

import os
from contextlib import suppress

ENDINGS = (".json", ".json.gz", ".json.zst")


def is_wanted(name: str) -> bool:
    """Whether a name is one that this system loads; names of files in the making are not."""
    return name.endswith(ENDINGS) and not name.startswith(".")


def waiting(folder: str) -> list[str]:
    """The names of the files to load, in order; raises OSError if the folder can't be listed."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_wanted(entry.name) and not _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def waiting_files(folder: str) -> list[tuple[str, os.stat_result]]:
    """The same with each file's status; raises OSError if the folder can't be listed."""
    found = []
    for name in waiting(folder):
        with suppress(FileNotFoundError):
            found.append((name, os.lstat(os.path.join(folder, name))))
    return found
