"""Runs python main.py as a process with all its functions, started before the files arrive."""

import os
import pty
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import psycopg2

import watcher.scan
from benchmarks.files import Made
from db.chunk import CHUNK_ROWS
from db.copy_format import CopyRows, copy_data
from db.tables import TABLES
from processing.file_types import kind_of_name

ROOT = Path(__file__).parent.parent


class Daemon:
    """A daemon with its own folder."""

    def __init__(self, folder: Path, url: str | None, process: subprocess.Popen[bytes], log: Path) -> None:
        self.folder = folder
        self.url = url
        self.process = process
        self.log = log

    def load(self, files: Path, count: int) -> float:
        """Moves the files in; returns the seconds until the last one is committed and gone."""
        names = sorted(os.listdir(files))
        with closing(psycopg2.connect(self.url)) as connection:
            connection.autocommit = True
            started = time.perf_counter()
            for name in names:
                os.rename(files / name, self.folder / name)
            wait_for(lambda: _ended_files(connection) >= count)
            wait_for(lambda: not watcher.scan.waiting(str(self.folder)))
            return time.perf_counter() - started

    def processor_seconds(self) -> float:
        """Returns the seconds of the processor that the daemon and its living workers have used."""
        process = psutil.Process(self.process.pid)
        times = [member.cpu_times() for member in (process, *process.children(recursive=True))]
        return float(sum(used.user + used.system for used in times))


def chunks(made: Made) -> Iterator[tuple[str, bytes]]:
    """Yields the kind and the bytes of each COPY that ours sends for a file."""
    kind = kind_of_name(made.path.name)
    assert kind is not None
    text = made.path.read_bytes()
    usual = kind.decode_fast(text[text.index(b"[") : -1])
    assert usual is not None
    for start in range(0, len(usual[1]), CHUNK_ROWS):
        packed = CopyRows()
        TABLES[kind.name].pack(packed, usual[1][start : start + CHUNK_ROWS], 0)
        yield kind.name, copy_data(sorted(packed.rows))


@contextmanager
def running(
    url: str | None,
    cwd: Path | None = None,
    checkout: Path = ROOT,
    arguments: Sequence[str] = (),
    at_terminal: bool = False,
    ready: bytes = b"watching folder=",
    /,
    **settings: object,
) -> Iterator[Daemon]:
    """Starts the program of a checkout, waits until its log has what is ready, and stops it at the end.

    It writes into a file, or to a terminal whose output goes into that file.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-ours-") as temporary:
        place = cwd or Path(temporary)
        log = place / "log"
        chosen = {"TERM": "xterm-256color", **settings} if at_terminal else settings
        environment = {**os.environ, **{name: str(value) for name, value in chosen.items()}}
        if url is not None:
            environment["DATABASE_URL"] = url
        with _terminal(log) if at_terminal else open(log, "wb") as output:
            command = [sys.executable, str(checkout / "main.py"), *arguments]
            process = subprocess.Popen(command, cwd=place, env=environment, stderr=output)
        try:
            wait_for(lambda: ready in log.read_bytes(), process)
            yield Daemon(place / "incoming", url, process, log)
        finally:
            process.terminate()
            process.wait()


@contextmanager
def _terminal(log: Path) -> Iterator[int]:
    """Yields a terminal for a process that is started meanwhile; what it shows goes into a file."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 120))

    def read() -> None:
        with open(log, "ab", buffering=0) as output, suppress(OSError):  # the process has ended
            while data := os.read(ours, 1 << 16):
                output.write(data)
        os.close(ours)

    log.write_bytes(b"")
    threading.Thread(target=read, daemon=True).start()
    try:
        yield theirs
    finally:
        os.close(theirs)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    """Checks the condition every 5 ms; raises TimeoutError after half an hour or when the process ends."""
    deadline = time.monotonic() + 1800
    while not condition():
        if time.monotonic() > deadline or (process and process.poll() is not None):
            raise TimeoutError("the daemon ended or took too long")
        time.sleep(0.005)


class PeakMemory:
    """The peak of the resident bytes of a process and its descendants together, measured every 50 ms."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._process = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.bytes = max(self.bytes, sum(map(_resident, self._family())))

    def _family(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]


def _resident(process: psutil.Process) -> int:
    try:
        resident: int = process.memory_info().rss
        return resident
    except psutil.NoSuchProcess:
        return 0


def _ended_files(connection: psycopg2.extensions.connection) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM mobileye_data.ingested_files")
        (count,) = cursor.fetchone() or (0,)
        return int(count)
