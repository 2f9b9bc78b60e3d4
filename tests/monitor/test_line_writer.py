"""The writer of log lines: a reader who stalls or a disk that is full holds up nobody."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator

import pytest

from monitor.line_writer import LineWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, 1031, 4096)  # F_SETPIPE_SZ: a few lines fill it
    yield reader, writer
    os.set_blocking(reader, False)
    while True:  # what holds up a writer's thread is read, so that it ends with its pipe closed
        try:
            if not os.read(reader, 1 << 20):
                break
        except BlockingIOError:
            break
    os.close(reader)


def said(dropped: int) -> str:
    return f"{dropped} dropped"


def read_until(reader: int, last: str) -> list[str]:
    text = b""
    while not text.endswith(f"{last}\n".encode()):
        text += os.read(reader, 1 << 16)
    return text.decode().splitlines()


def test_a_line_is_written_at_once(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    lines = LineWriter(writer, said)
    for line in ("first", "second \udcff"):
        lines.write(line)
        assert os.read(reader, 100) == f"{line}\n".encode(errors="backslashreplace")


def test_lines_keep_their_order(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    lines = LineWriter(writer, said)
    for number in range(5000):
        lines.write(f"line {number}")
    assert read_until(reader, "line 4999") == [f"line {number}" for number in range(5000)]


def test_a_reader_who_stalls_holds_up_nobody_and_learns_what_was_dropped(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    lines = LineWriter(writer, said, most=100)
    for number in range(1000):
        lines.write(f"line {number:0200}")
    got = read_until(reader, f"line {999:0200}")
    expected = 0
    for line in got:  # a line, or how many are missing in its place
        expected += int(line.split()[0]) if line.endswith("dropped") else 1
        assert line.endswith("dropped") or line == f"line {expected - 1:0200}"
    assert expected == 1000 and len(got) < 500
    assert got[-100:] == [f"line {number:0200}" for number in range(900, 1000)]


def test_the_end_waits_for_a_reader_but_not_for_ever(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    lines = LineWriter(writer, said)
    for _ in range(100):
        lines.write("x" * 200)
    began = time.monotonic()
    lines.close(0.05)
    assert time.monotonic() - began >= 0.05
    taken = b""
    while taken.count(b"\n") < 100:
        taken += os.read(reader, 4096)
    lines.close(60)
    assert time.monotonic() - began < 60


def test_lines_that_a_full_disk_refuses_are_counted(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pipe
    lines = LineWriter(writer, said)
    real_write, room = os.write, [4]

    def write(fd: int, data: bytes) -> int:
        if fd != writer or not room:
            return real_write(fd, data)
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= 4
        return real_write(fd, bytes(data[:4]))

    monkeypatch.setattr(os, "write", write)
    lines.write("12345")
    lines.close(20)
    lines.write("6")
    lines.close(20)
    room.clear()
    lines.write("7")
    assert read_until(reader, "7") == ["1234", said(2), "7"]


def test_a_descriptor_that_does_not_block_loses_nothing(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    lines = LineWriter(writer, said)
    for number in range(1000):
        lines.write(f"line {number:0200}")
    assert len(read_until(reader, f"line {999:0200}")) == 1000


def test_without_a_thread_a_line_is_written_if_the_reader_has_room(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    reader, writer = pipe
    lines = LineWriter(writer, said)
    with monkeypatch.context() as patched:
        patched.setattr("monitor.line_writer.Thread.start", refuse)
        for number in range(100):
            lines.write(f"line {number:0200}")
        assert os.read(reader, 206) == f"line {0:0200}\n".encode()
        lines.close(0)
    lines.write("end")
    assert len(read_until(reader, "end")) == 100
