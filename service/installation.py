"""The name of this installation: a file in the data folder that stays the same from run to run."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from processing.errors import Misconfigured

NAME = "publisher.id"


def find_or_make(data_folder: Path) -> str:
    """Returns the name, and makes one for a new installation; raises Misconfigured if it can't be kept."""
    path = data_folder / NAME
    try:
        data_folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        name = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not of this program"
        raise Misconfigured(f"can't keep the name of this publisher in {path}: {reason}") from None
    if not name:
        raise Misconfigured(f"can't read the name of this publisher in {path}: it is empty")
    return name


def _make(path: Path) -> None:
    """Writes a new name, whole or not at all; one that another process has just written stays."""
    part = path.with_name(f"{NAME}.{os.getpid()}")
    with open(part, "w", encoding="ascii") as file:
        file.write(f"{secrets.token_hex(8)}\n")
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        os.link(part, path)
    part.unlink()
