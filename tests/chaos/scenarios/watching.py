"""Takes from the daemon what reports new files: events, their thread, the folder itself."""

import os
import re
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.chaos.rig import Figure, Finding, Rig, Trial
from tests.support import until

#: RESCAN_SECONDS of the daemon under test, and the time that a file or a new observer needs.
_RESCAN, _WORK = 1.0, 1.5


def overflow(trial: Trial) -> Finding:
    """Makes inotify lose events while the daemon is stopped; the volume is the files of the backlog."""
    with trial.rig() as rig:
        with rig.watched():
            rig.drop(1)
            rig.daemon.until_empty()
            with _stopped(rig):
                for _ in trial.rounds():
                    rig.drop(1)
            started = time.monotonic()
            rig.drain()
            seconds = time.monotonic() - started
        limit = _RESCAN + _WORK + trial.done / 500
        return rig.finding(Figure("all loaded", seconds, limit))


def sabotage(trial: Trial) -> Finding:
    """Deletes, renames, links or unmounts the folder, kills the thread of events, or has no observer."""
    slowest = 0.0
    complaints: list[str] = []
    for number in trial.rounds():
        name, harm = list(_HARMS.items())[number % len(_HARMS)]
        observer = "off" if harm is _nothing else "native"
        part = Trial(trial.server, trial.folder / str(number), trial.seed, 1, trial.share, 60, trial.program)
        with part.rig(OBSERVER=observer, WORKERS=1) as rig:
            with rig.watched():
                rig.drop(12)
                rig.daemon.until_empty()
                harm(rig)
                slowest = max(slowest, rig.seconds_to_load(20))
                slowest = max(slowest, rig.seconds_to_load(20))
            finding = rig.finding()
        wrong = [fault for fault, count in finding.counts.items() if count and fault != "rows"]
        complaints += [f"{name}: {fault}" for fault in (*wrong, *finding.complaints)]
    return Finding(figures=[Figure("loaded", slowest, _RESCAN + _WORK)], complaints=complaints)


@contextmanager
def _stopped(rig: Rig) -> Iterator[None]:
    assert rig.daemon.process is not None
    rig.daemon.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        rig.daemon.process.send_signal(signal.SIGCONT)


# Harms --------------------------------------------------------------------------------------------


def _nothing(rig: Rig) -> None:
    """Does nothing, because the observer is off already."""


def _deleted(rig: Rig) -> None:
    shutil.rmtree(rig.daemon.incoming)
    time.sleep(_RESCAN)
    rig.daemon.incoming.mkdir()
    rig.daemon.failed.mkdir()


def _recreated_at_once(rig: Rig) -> None:
    shutil.rmtree(rig.daemon.incoming)
    rig.daemon.incoming.mkdir()


def _renamed(rig: Rig) -> None:
    rig.daemon.incoming.rename(rig.daemon.folder / "elsewhere")
    rig.daemon.incoming.mkdir()


def _linked(rig: Rig) -> None:
    """Replaces the folder with a link to it."""
    elsewhere = rig.daemon.folder / "elsewhere"
    rig.daemon.incoming.rename(elsewhere)
    rig.daemon.incoming.symlink_to(elsewhere)


def _unmounted(rig: Rig) -> None:
    """Unmounts the folder's own file system while it is in use, and mounts it again with its files."""
    folder = rig.daemon.incoming
    aside = rig.daemon.folder / "mounted"
    aside.mkdir()
    with _mounted(aside):
        _mount("--bind", str(aside), str(folder))
        assert rig.seconds_to_load(20) < _RESCAN + _WORK
        _unmount(folder)
        time.sleep(_RESCAN)
        _mount("--bind", str(aside), str(folder))
        assert rig.seconds_to_load(20) < _RESCAN + _WORK
        _unmount(folder)


@contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    _mount("-t", "tmpfs", "none", str(folder))
    try:
        yield
    finally:
        _unmount(folder)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def _emitter_dies(rig: Rig) -> None:
    """Gives the thread that reads inotify's events an error instead of an event."""
    assert rig.daemon.process is not None
    thread = until(lambda: _reader_of_inotify(rig.daemon.process.pid), 10, "a thread waits for events")  # type: ignore[union-attr]
    command = ["strace", "-qq", "-p", str(thread), "-e", "trace=read", "-e", "inject=read:error=EIO"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tracer:
        until(lambda: _tracer(thread) == tracer.pid, 10, "the thread is traced")
        rig.drop(12)
        rig.daemon.until_empty()
        tracer.terminate()


def _reader_of_inotify(process: int) -> int | None:
    """Returns the thread that polls the descriptor of inotify, according to /proc."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        call, *arguments = (thread / "syscall").read_text().split()
        if call == str(_POLL) and _polled(process, int(arguments[0], 16)) in _descriptors_of_inotify(process):
            return int(thread.name)
    return None


def _polled(process: int, address: int) -> int:
    with open(f"/proc/{process}/mem", "rb") as memory:
        memory.seek(address)
        (descriptor,) = struct.unpack("i", memory.read(4))
    return int(descriptor)


def _descriptors_of_inotify(process: int) -> set[int]:
    found = set()
    for entry in os.scandir(f"/proc/{process}/fd"):
        with suppress(FileNotFoundError):
            if os.readlink(entry.path) == "anon_inode:inotify":
                found.add(int(entry.name))
    return found


def _tracer(thread: int) -> int:
    match = re.search(r"TracerPid:\s+(\d+)", Path(f"/proc/{thread}/status").read_text())
    return int(match[1]) if match else 0


#: poll(2) on x86-64.
_POLL = 7

_HARMS: dict[str, Callable[[Rig], None]] = {
    "observer off": _nothing,
    "folder deleted": _deleted,
    "folder recreated at once": _recreated_at_once,
    "folder renamed": _renamed,
    "folder linked": _linked,
    "dead emitter": _emitter_dies,
    "folder unmounted": _unmounted,  # comes last, because not every machine lets tests mount
}
