"""What the tests of processing share: documents read to their end, and processes beside this one."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from processing.document import Document, LongKey, Miscounted, OpenText, RepeatedKey
from processing.errors import BadFile
from processing.records import Record, Rejected
from processing.source import SourceFile
from processing.text import open_text
from tests.support import ROOT, report, statuses

MAX_BYTES = 1024**3
OTHER_USER = 65534

START = b'{"vehicle_status":['
REPORT = statuses(report()).removeprefix(START).removesuffix(b"]}")


class Reading(Struct):
    """What a document held."""

    kind: str
    records: list[Record]
    rejected: list[Rejected]
    extra: str | None = None


def read(content: bytes, name: str = "dropped.json") -> Reading:
    """A document as the processor reads it: carefully if it must be."""
    return read_opened(lambda: io.BytesIO(content), name)


def read_opened(opened: OpenText, name: str = "dropped.json") -> Reading:
    for careful in (False, True):
        with suppress(RepeatedKey, LongKey, Miscounted):
            document = Document(name, opened, careful=careful)
            elements = list(document.parsed())
            records = [record for parsed in elements for record in parsed.records]
            rejected = [reject for parsed in elements for reject in parsed.rejected]
            document.check(sum(parsed.count for parsed in elements), len(records) + len(rejected))
            return Reading(document.kind.name, records, rejected, document.extra)
    raise AssertionError("a careful pass asked for another, or lost something")


def refusal(content: bytes, name: str = "dropped.json") -> str:
    """Why the document is bad."""
    with pytest.raises(BadFile) as caught:
        read(content, name)
    return str(caught.value)


def statuses_with(field: bytes) -> bytes:
    """A report with a field x of that JSON between two without."""
    odd = REPORT[:-1] + b',"x":' + field + b"}"
    return START + b",".join((REPORT, odd, REPORT)) + b"]}"


def read_source(source: SourceFile, max_bytes: int = MAX_BYTES) -> Reading:
    return read_opened(lambda: open_text(source, max_bytes), source.name)


@contextmanager
def beside(code: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs the code up to its input(), for as long as the block lasts."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n", process.stdout.read()
        yield process
    finally:
        process.kill()
        process.communicate()


#: Code for beside(): holds a file open for writing.
WRITER = "import sys; file = open(sys.argv[1], 'ab'); input('ready\\n')"


def peak(*arguments: str) -> tuple[str, int]:
    """What a Python program prints, its verdict and its own_peak()."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    verdict, megabytes = done.stdout.splitlines()
    return verdict, int(megabytes)


def own_peak() -> int:
    """Peak memory of this process in MB, without that of its parent, which ru_maxrss brings along."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def give_to_other_user(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, OTHER_USER, OTHER_USER)


def as_other_user(action: Callable[[], Any]) -> str:
    """What the action returns or raises, as text, in a child with no right to what is root's."""
    if os.geteuid() != 0:
        return _answer(action)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(OTHER_USER)
        os.setuid(OTHER_USER)
        os.write(writing, _answer(action).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def _answer(action: Callable[[], Any]) -> str:
    try:
        return str(action())
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
