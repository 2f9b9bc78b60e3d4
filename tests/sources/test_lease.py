"""Who is known to write a file, and where nobody can know."""

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sources import lease
from sources.lease import Writers, is_remote, writers
from tests.processing.support import WRITER, as_other_user, beside

linux = pytest.mark.skipif(sys.platform != "linux", reason="leases show writers on Linux")


@pytest.fixture
def path() -> Iterator[Path]:
    """A file that all may read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "a.json"
        path.write_bytes(b"{}")
        path.chmod(0o644)
        yield path


def seen(path: Path) -> Writers:
    fd = os.open(path, os.O_RDONLY)
    try:
        return writers(fd)[0]
    finally:
        os.close(fd)


@linux
def test_the_owner_learns_of_writers(path: Path) -> None:
    assert seen(path) is Writers.NONE
    with beside(WRITER, path):
        assert seen(path) is Writers.SOME


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_another_user_learns_nothing_whether_somebody_writes_or_not(path: Path) -> None:
    assert as_other_user(lambda: seen(path)) == "Writers.UNKNOWN"
    with beside(WRITER, path):
        assert as_other_user(lambda: seen(path)) == "Writers.UNKNOWN"


@linux
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOLCK])
def test_a_file_system_without_leases_says_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(fd: int, command: int, argument: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert seen(path) is Writers.UNKNOWN


def test_a_system_without_leases_says_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fcntl, "F_SETLEASE", raising=False)
    assert seen(path) is Writers.UNKNOWN


@linux
def test_a_network_file_system_is_known_by_its_type(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = subprocess.run(["stat", "-f", "-c", "%t", path], check=True, capture_output=True, text=True)
    with path.open("rb") as file:
        assert not is_remote(file.fileno())
        monkeypatch.setattr(lease, "REMOTE", {int(found.stdout, 16): "its own"})
        assert is_remote(file.fileno())


@linux
def test_a_file_system_that_fails_says_so() -> None:
    for ask in (is_remote, writers):
        with pytest.raises(OSError, match="Bad file descriptor"):
            ask(1_000_000)


def test_elsewhere_nobody_asks_for_the_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not is_remote(-1)
