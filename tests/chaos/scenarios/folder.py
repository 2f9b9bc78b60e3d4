"""Puts hostile entries into the folder, and changes files while they are read."""

import gzip
import os
import socket
import time
from collections.abc import Callable
from contextlib import chdir, closing, suppress
from pathlib import Path

import zstandard

from tests.chaos.producers import Dropped
from tests.chaos.rig import Figure, Finding, Rig, Trial
from tests.support import Daemon

_SECRET = b'{"vehicle_status": "canary-of-the-secret"}'

#: The longest time that an entry may delay the next file; it includes the scan, for a file without event.
_HANG = 1.0 + 1.0


class _Unprivileged(Daemon):
    """A daemon without the capabilities of root, because root may open any file."""

    prefix = ("setpriv", "--bounding-set=-all") if os.geteuid() == 0 else ()


def hostile(trial: Trial) -> Finding:
    """Creates each sort of entry that a folder can hold in turn, and drops a good file after each."""
    if trial.is_ours:
        trial.program = _Unprivileged
    trial.take(len(_ENTRIES))
    slowest = 0.0
    with trial.rig(SETTLE_SECONDS=1) as rig:
        secret = rig.daemon.folder / "secret"
        secret.write_bytes(_SECRET)
        names = trial.rng.sample(sorted(_ENTRIES), len(_ENTRIES))
        with rig.watched():
            for number in trial.rounds():
                _ENTRIES[names[number]](rig.daemon.incoming, secret)
                slowest = max(slowest, rig.seconds_to_load(10))
        finding = rig.finding(Figure("next good file", slowest, _HANG))
        if secret.read_bytes() != _SECRET:
            finding.complaints.append("the target of a link was touched")
    return finding


def races(trial: Trial) -> Finding:
    """Writes files in pieces, appends to them, truncates, rewrites and replaces them while they are read."""
    disturb = (_in_pieces, _appended, _rewritten, _replaced, _held_open)
    with trial.rig() as rig:
        with rig.watched():
            for number in trial.rounds():
                disturb[number % len(disturb)](rig)
            rig.drain()
        return rig.finding()


# Entries ------------------------------------------------------------------------------------------


def _fifo(folder: Path, secret: Path) -> None:
    os.mkfifo(folder / "fifo.json")


def _socket(folder: Path, secret: Path) -> None:
    # In the folder, because the path of a socket must be short.
    with closing(socket.socket(socket.AF_UNIX)) as listener, chdir(folder):
        listener.bind("socket.json")


def _device(folder: Path, secret: Path) -> None:
    with suppress(PermissionError):  # only root can make one
        os.mknod(folder / "zero.json", 0o666 | 0o020000, os.makedev(1, 5))


def _link_to_secret(folder: Path, secret: Path) -> None:
    (folder / "link.json").symlink_to(secret)


def _link_to_itself(folder: Path, secret: Path) -> None:
    (folder / "loop.json").symlink_to("loop.json")


def _link_to_folder(folder: Path, secret: Path) -> None:
    (folder / "folderlink.json").symlink_to(secret.parent)


def _hard_link(folder: Path, secret: Path) -> None:
    os.link(secret, folder / "hard.json")


def _folder(folder: Path, secret: Path) -> None:
    (folder / "folder.json").mkdir()


def _closed(folder: Path, secret: Path) -> None:
    (folder / "closed.json").write_bytes(_SECRET)
    (folder / "closed.json").chmod(0)


def _sticky(folder: Path, secret: Path) -> None:
    """Creates a file that may be read but not removed, as in /tmp: it is loaded, and stays."""
    if os.geteuid() == 0:  # only root can give it to somebody else
        folder.chmod(0o1777)
        (folder / "sticky.json").write_bytes(b'{"vehicle_status":[]}')
        for owned in (folder, folder / "sticky.json"):
            os.chown(owned, 1234, 1234)


def _long_name(folder: Path, secret: Path) -> None:
    (folder / ("x" * 250 + ".json")).write_bytes(b"{]")


def _odd_names(folder: Path, secret: Path) -> None:
    for name in (b"\xff\xfe.json", b"new\nline level=error.json", b"\x1b[31m.json", b"-rf.json"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"{]")


def _sparse(folder: Path, secret: Path) -> None:
    with open(folder / "sparse.json", "wb") as file:
        file.truncate(1024**4)


def _empty(folder: Path, secret: Path) -> None:
    (folder / "empty.json").touch()


def _gzip_bomb(folder: Path, secret: Path) -> None:
    (folder / "bomb.json.gz").write_bytes(gzip.compress(b'{"vehicle_status":["' + bytes(300_000_000), 1))


def _zstd_bomb(folder: Path, secret: Path) -> None:
    (folder / "bomb.json.zst").write_bytes(zstandard.compress(b'{"vehicle_status":[' + b" " * 300_000_000))


def _binary(folder: Path, secret: Path) -> None:
    (folder / "binary.json").write_bytes(os.urandom(100_000))


_ENTRIES: dict[str, Callable[[Path, Path], None]] = {
    entry.__name__: entry
    for entry in (
        _fifo,
        _socket,
        _device,
        _link_to_secret,
        _link_to_itself,
        _link_to_folder,
        _hard_link,
        _folder,
        _closed,
        _sticky,
        _long_name,
        _odd_names,
        _sparse,
        _empty,
        _gzip_bomb,
        _zstd_bomb,
        _binary,
    )
}


# Races --------------------------------------------------------------------------------------------


def _new(rig: Rig, *, optional: bool = False) -> tuple[Dropped, Path, bytes]:
    file = rig.journal.draw(rig.rng, rig.rng.choice((12, 600, 30_000 if rig.rng.random() < 0.1 else 50)))
    rig.journal.add(file, optional=optional)
    return file, rig.daemon.incoming / file.name, file.content()


def _pause(rig: Rig) -> None:
    time.sleep(rig.rng.choice((0, 0.001, 0.01, 0.05)))


def _in_pieces(rig: Rig) -> None:
    """Writes a file in pieces and closes it after each."""
    _, path, content = _new(rig)
    cuts = sorted(rig.rng.sample(range(len(content)), 3))
    for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        with open(path, "ab", buffering=0) as file:
            file.write(content[start:end])
        _pause(rig)


def _appended(rig: Rig) -> None:
    """Writes the end of a file late, and keeps the file open all the time."""
    _, path, content = _new(rig)
    with open(path, "wb", buffering=0) as file:
        file.write(content[:-2])
        _pause(rig)
        file.write(content[-2:])


def _held_open(rig: Rig) -> None:
    """Writes a whole document, keeps the file open, and then writes another document in its place."""
    _, path, content = _new(rig)
    first = rig.journal.draw(rig.rng, 3)
    with open(path, "wb", buffering=0) as file:
        file.write(first.content())
        _pause(rig)
        file.seek(0)
        file.truncate()
        file.write(content)


def _rewritten(rig: Rig) -> None:
    """Truncates a file and writes another document; the first one may be missing, but only as a whole."""
    path, content = _another_version(rig)
    path.write_bytes(content)


def _replaced(rig: Rig) -> None:
    """Renames another file to the name of the first one."""
    path, content = _another_version(rig)
    other = path.with_name(f".{path.name}.tmp")
    other.write_bytes(content)
    other.rename(path)


def _another_version(rig: Rig) -> tuple[Path, bytes]:
    """Writes a file; returns its path and the content that is to replace it."""
    first, path, content = _new(rig, optional=True)
    path.write_bytes(content)
    _pause(rig)
    second = rig.journal.draw(rig.rng, 40, first.kind)
    rig.journal.add(second)
    return path, second.content()
