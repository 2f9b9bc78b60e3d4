"""Starts programs fast: each is a fork of a process that has already imported everything.

`python -m tests.chaos.nursery` reads requests and writes answers, one JSON line each. A program stops before
its first step, or before the first step of its second thread, so that a tracer can attach there.
"""

import ctypes
import json
import mmap
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, raise_signal
from typing import Any

import main as command_line
from processing.batch import Outcome
from sources import s3_client
from sources.policy import BucketPlace
from tests.chaos import ingest
from tests.support import ROOT

#: The threads of a program; the second sends chunks of large files.
MAIN, SENDER = "main", "sender"

_PR_SET_PTRACER, _ANY = 0x59616D61, -1


@dataclass(frozen=True)
class Ended:
    """The end of a program: its exit code, or minus the signal; and the outcomes that it reported."""

    code: int
    output: str
    hung: bool = False


@dataclass(frozen=True)
class Held:
    """A program that is stopped before a step of `thread`, whose id is None if it never started."""

    nursery: "Nursery"
    pid: int
    thread: int | None

    def run(self, seconds: float = 60) -> Ended:
        """Runs the program to its end; kills it after `seconds`."""
        watch = threading.Timer(seconds, self._kill)
        deadline = time.monotonic() + seconds
        watch.start()
        try:
            with suppress(ProcessLookupError):
                os.kill(self.pid, SIGCONT)
            ended = self.nursery.ended()
        finally:
            watch.cancel()
        return replace(ended, hung=time.monotonic() > deadline)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(self.pid, SIGKILL)


class Nursery:
    """The process from which the programs are forked."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.nursery", str(log)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hold(
        self, program: str, *arguments: str, thread: str = MAIN, environment: dict[str, str] | None = None
    ) -> Held:
        """Starts a program, which stops before its first step."""
        assert self._process.stdin is not None
        request = {"program": program, "arguments": arguments, "thread": thread}
        self._process.stdin.write(json.dumps({**request, "environment": environment or {}}) + "\n")
        self._process.stdin.flush()
        return Held(self, **self._answer())

    def ended(self) -> Ended:
        """Waits for the end of the program that runs."""
        return Ended(**self._answer())

    def close(self) -> None:
        self._process.communicate(timeout=20)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def serve(log: str) -> int:
    """Serves requests until there are no more; in a fork, runs the requested program."""
    s3_client.make_client = cache(s3_client.make_client)
    for line in sys.stdin:
        request, memory = json.loads(line), mmap.mmap(-1, 2**16)
        if request["program"] == "bucket":  # a client that is made once saves most of the time of each run
            os.environ.update(request["environment"])
            s3_client.make_client(request["arguments"][2])
        pid = os.fork()
        if pid == 0:
            return _be(request, log, memory)
        _watch(pid, memory)
    return 0


def _watch(pid: int, memory: mmap.mmap) -> None:
    _, status = os.waitpid(pid, os.WUNTRACED)
    is_held = os.WIFSTOPPED(status)
    _reply(pid=pid, thread=_last_thread(pid) if is_held else None)
    if is_held:
        _, status = os.waitpid(pid, 0)
    output = memory[:].rstrip(b"\0").decode(errors="replace")
    memory.close()
    _reply(code=os.waitstatus_to_exitcode(status), output=output)


def _last_thread(pid: int) -> int:
    """Returns the id of the thread that was started last."""
    return max(map(int, os.listdir(f"/proc/{pid}/task")))


def _reply(**answer: object) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201


def _be(request: dict[str, Any], log: str, memory: mmap.mmap) -> int:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(os.path.dirname(log))
    os.environ.update(request["environment"])
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY)  # allows a tracer that is no ancestor
    if request["thread"] == SENDER:
        threading.setprofile(_hold_thread)
    ingest.get_ready()
    return _PROGRAMS[request["program"]](request["arguments"], request["thread"], memory)


def _hold_thread(*_: object) -> None:
    sys.setprofile(None)
    threading.setprofile(None)
    raise_signal(SIGSTOP)


def _ingest(arguments: Sequence[str], thread: str, memory: mmap.mmap) -> int:
    """Runs the ingest; it reports to shared memory, which takes no system call that could fail."""

    def report(what: Outcome | Exception) -> None:
        memory.write(f"{_formatted(what)}\n".encode()[:1000])

    if thread == MAIN:
        raise_signal(SIGSTOP)
    folder, url = arguments
    return ingest.main(folder, url, report)


def _bucket(arguments: Sequence[str], thread: str, memory: mmap.mmap) -> int:
    """Runs the ingest of a bucket."""

    def report(what: Outcome | Exception) -> None:
        memory.write(f"{_formatted(what)}\n".encode()[:1000])

    raise_signal(SIGSTOP)
    bucket, prefix, endpoint, url = arguments
    return ingest.bucket(BucketPlace(bucket, prefix), endpoint, url, report)


def _publish(arguments: Sequence[str], thread: str, memory: mmap.mmap) -> int:
    """Runs a publisher of a folder."""

    def report(what: Outcome | Exception) -> None:
        memory.write(f"{_formatted(what)}\n".encode()[:1000])

    raise_signal(SIGSTOP)
    folder, servers, prefix = arguments
    return ingest.publish(folder, servers, prefix, report)


def _consume(arguments: Sequence[str], thread: str, memory: mmap.mmap) -> int:
    """Runs a consumer."""

    def report(what: Outcome | Exception) -> None:
        memory.write(f"{_formatted(what)}\n".encode()[:1000])

    raise_signal(SIGSTOP)
    servers, prefix, url, last = arguments
    return ingest.consume(servers, prefix, url, int(last), report)


def _formatted(what: Outcome | Exception) -> str:
    if isinstance(what, Outcome):
        return f"{what.name}: {what.state} {what.reason}".rstrip()
    places = [
        f" ({os.path.basename(at.filename)}:{at.lineno})" for at in traceback.extract_tb(what.__traceback__)
    ]
    return f"{type(what).__name__}: {what}{''.join(places[-1:])}"


def _commands(arguments: Sequence[str], thread: str, memory: mmap.mmap) -> int:
    """Runs commands one after the other, as a user would; returns 0 if they ended as they should."""
    if thread == MAIN:
        raise_signal(SIGSTOP)
    codes = []
    for command in arguments:
        sys.argv = ["main.py", *command.split()]
        codes.append(command_line.main())
    return 0 if set(codes) <= {0, 1} else 1


_PROGRAMS = {
    "ingest": _ingest,
    "bucket": _bucket,
    "commands": _commands,
    "consume": _consume,
    "publish": _publish,
}


if __name__ == "__main__":
    sys.exit(serve(*sys.argv[1:]))
