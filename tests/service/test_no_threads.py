"""A system that has no thread: the daemon waits or ends with a sentence; Ctrl+C at its start is quiet."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from db.connection import Database
from processing.errors import BatchLost
from service.heartbeat import Heartbeat
from service.signals import StopSignal
from service.worker import BatchRunner
from tests.support import ROOT, Daemon, report, statuses, until
from watcher.kind import ObserverKind
from watcher.observer import FolderObserver

#: main.py, whose process gets no thread from a number on (1: the first), for a number of tries.
PROGRAM = f"""
import runpy, sys, threading
first, tries = int(sys.argv.pop(1)), int(sys.argv.pop(1))
real, count = threading._start_new_thread, 0
def start(*arguments):
    global count
    count += 1
    if first <= count < first + tries:
        raise RuntimeError("can't start new thread")
    return real(*arguments)
threading._start_new_thread = start
sys.argv[0] = {str(ROOT / "main.py")!r}
sys.path.insert(0, {str(ROOT)!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("tries", [1, 3])
@pytest.mark.parametrize("first", range(1, 9))
def test_a_daemon_without_a_thread_waits_or_ends_with_a_sentence(
    tmp_path: Path, database: Database, first: int, tries: int
) -> None:
    daemon = Daemon(tmp_path, database.url, WORKERS=1)
    daemon.drop("vehicles_status_1.json", statuses(report()))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    daemon.program = program
    daemon.start(str(first), str(tries), wait=False)
    assert daemon.process is not None
    process = daemon.process
    until(lambda: process.poll() is not None or not daemon.left(), 60)
    daemon.stop()
    log = daemon.log()
    assert "Traceback" not in log and "Exception" not in log
    assert not daemon.left() or "the system has no thread" in log.splitlines()[-1]


def test_without_a_thread_the_observer_fails_as_with_any_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = FolderObserver(str(tmp_path), ObserverKind.NATIVE, lambda name: None, lambda: None)
    before = len(os.listdir("/dev/fd"))
    with monkeypatch.context() as patched, pytest.raises(OSError, match="can't start new thread"):
        patched.setattr("threading._start_new_thread", refuse)
        observer.start()
    assert len(os.listdir("/dev/fd")) == before
    observer.start()
    assert observer.is_sound()
    observer.stop()


def refuse(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_a_signal_needs_no_new_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = StopSignal()
    with stop.on_signals(), monkeypatch.context() as patched:
        patched.setattr("threading._start_new_thread", refuse)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.event.wait(20)


def test_no_file_is_guilty_of_a_worker_without_threads() -> None:
    assert isinstance(BatchRunner(refuse, Heartbeat()).load([]), BatchLost)  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("arguments", [(), ("status",), ("--help",)])
def test_ctrl_c_at_the_start_prints_no_traceback(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    daemon = Daemon(tmp_path, "postgresql://127.0.0.1:1/d")
    command = [sys.executable, str(ROOT / "main.py"), *arguments]
    for _ in range(8):
        with subprocess.Popen(
            command, cwd=tmp_path, env=daemon.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            # From its first import on; what Python does before is not ours.
            until(lambda: process.poll() is not None or "pydantic" in mapped(process.pid))
            time.sleep(random.uniform(0, 0.5))
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
        assert b"Traceback" not in told and b"KeyboardInterrupt" not in told


def mapped(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""
