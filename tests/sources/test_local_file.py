"""Files opened safely: of every type, busy, compressed, damaged, failing, changing."""

import codecs
import errno
import fcntl
import gzip
import hashlib
import io
import json
import os
import secrets
import socket
import stat
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from processing.errors import BadFile, Gone, Incomplete, NotReady, TooLarge
from processing.source import CHUNK_BYTES, MAX_SHARED_BYTES
from processing.text import check_filled, open_text
from sources.local_file import FileIdentity, LocalFile, open_file
from tests.processing.support import MAX_BYTES, WRITER, as_other_user, beside, peak, read_source
from tests.support import report, statuses

CONTENT = statuses(*map(report, range(50)))
LOCKER = "import fcntl, sys; fcntl.flock(file := open(sys.argv[1]), fcntl.LOCK_EX); input('ready\\n')"
NAME = "vehicles_status_1.json"

linux = pytest.mark.skipif(sys.platform != "linux", reason="leases show writers on Linux")
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")


def zstd(content: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(content)


def zstd_streamed(content: bytes) -> bytes:
    """Of unknown size, as a program writes it that compresses on the fly."""
    target = io.BytesIO()
    with zstandard.ZstdCompressor(write_checksum=True).stream_writer(target, closefd=False) as writer:
        writer.write(content)
    return target.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zstd": zstd,
    "zstd with checksum": lambda content: zstd(content, write_checksum=True),
    "zstd streamed": zstd_streamed,
}
COMPRESSED = [name for name in PACKED if name != "plain"]


def put(folder: Path, content: bytes) -> Path:
    path = folder / NAME
    path.write_bytes(content)
    return path


def count(folder: Path, max_bytes: int = MAX_BYTES) -> int:
    """How many records the file has."""
    with open_file(str(folder), NAME) as source:
        source.digest()
        return len(read_source(source, max_bytes).records)


def text_of(folder: Path) -> bytes:
    with open_file(str(folder), NAME) as source:
        text = open_text(source, MAX_BYTES)
        return b"".join(iter(lambda: text.read(1000), b""))


# What is no regular file --------------------------------------------------------------------------


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


SPECIAL: dict[str, Callable[[Path], object]] = {
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "link to itself": lambda path: path.symlink_to(path),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to a folder": lambda path: path.symlink_to("/"),
    "fifo": os.mkfifo,
    "socket": make_socket,
    "folder": Path.mkdir,
    "device": lambda path: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5)),
}


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, id=kind, marks=root if kind == "device" else ()) for kind, make in SPECIAL.items()],
)
def test_what_is_no_regular_file_is_bad_and_never_waited_for(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / NAME)
    with pytest.raises(BadFile, match="expected a regular file, got"):
        count(tmp_path)


def test_a_name_that_is_gone_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Gone):
        count(tmp_path)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Unlike pytest's own, one that other users may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("mode", [0o000, 0o200])
def test_a_file_without_the_right_to_read_it_has_to_wait(open_folder: Path, mode: int) -> None:
    put(open_folder, CONTENT).chmod(mode)
    assert as_other_user(lambda: count(open_folder)) == "NotReady: it can't be opened: Permission denied"


@root
def test_another_user_s_file_is_read_without_a_lease(open_folder: Path) -> None:
    path = put(open_folder, CONTENT)
    assert as_other_user(lambda: count(open_folder)) == "50"
    with beside(WRITER, path):
        assert as_other_user(lambda: count(open_folder)) == "50"


# Who else is busy with it -------------------------------------------------------------------------


@pytest.mark.parametrize("code", [LOCKER, pytest.param(WRITER, marks=linux)], ids=["lock", "writer"])
def test_a_file_that_another_process_is_busy_with_has_to_wait(tmp_path: Path, code: str) -> None:
    path = put(tmp_path, CONTENT)
    with beside(code, path), pytest.raises(NotReady, match=r"another process has it locked|open for writing"):
        count(tmp_path)
    assert count(tmp_path) == 50


def test_a_file_is_locked_for_as_long_as_it_is_open(tmp_path: Path) -> None:
    put(tmp_path, CONTENT)
    with open_file(str(tmp_path), NAME), pytest.raises(NotReady, match="locked"):
        count(tmp_path)
    assert count(tmp_path) == 50


def set_aside(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace(path: Path) -> None:
    set_aside(path)
    path.write_bytes(b"new")


@pytest.mark.parametrize(
    ("dispose", "verdict", "message"),
    [
        (os.unlink, Gone, ""),
        (set_aside, Gone, ""),
        (replace, NotReady, "another file took its name"),
        (lambda path: path.parent.rename(path.parent.with_name("away")), Gone, ""),
    ],
    ids=["deleted", "set aside", "replaced", "folder renamed"],
)
def test_a_file_that_another_process_disposes_of_before_it_is_locked_is_not_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dispose: Callable[[Path], object],
    verdict: type[Exception],
    message: str,
) -> None:
    (tmp_path / "in").mkdir()
    path = put(tmp_path / "in", CONTENT)
    lock = fcntl.flock

    def lose_the_race(fd: int, operation: int) -> None:
        dispose(path)
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", lose_the_race)
    with pytest.raises(verdict) as caught:
        count(tmp_path / "in")
    assert str(caught.value) == message


def test_the_identity_is_that_of_the_file_as_it_was_when_it_was_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, CONTENT)
    lock = fcntl.flock

    def lock_late(fd: int, operation: int) -> None:
        append(path)
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with open_file(str(tmp_path), NAME) as source:
        assert source.identity.size == len(CONTENT) + 1
        source.check_unchanged()


def test_readers_do_not_keep_a_file_waiting(tmp_path: Path) -> None:
    path = put(tmp_path, CONTENT)
    with beside(WRITER.replace("'ab'", "'rb'"), path):
        assert count(tmp_path) == 50


@linux
def test_a_writer_that_comes_later_is_noticed(tmp_path: Path) -> None:
    path = put(tmp_path, CONTENT)
    with open_file(str(tmp_path), NAME) as source:
        source.check_unchanged()
        with beside(WRITER, path), pytest.raises(NotReady, match="a program has it open for writing"):
            source.check_unchanged()
        source.check_unchanged()


def rewrite(path: Path) -> None:
    path.write_bytes(CONTENT.replace(b"driving", b"parking"))


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b" ")


CHANGES: dict[str, Callable[[Path], object]] = {
    "append": append,
    "truncate": lambda path: os.truncate(path, 10),
    "grow by a hole": lambda path: os.truncate(path, 2**40),
    "rewrite": rewrite,
    "chmod": lambda path: path.chmod(0o640),
    "utime": lambda path: os.utime(path, (0, 0)),
    "delete": os.unlink,
    "rename": lambda path: path.rename(path.with_name("other")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_while_it_is_read_is_noticed(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = put(tmp_path, CONTENT)
    with open_file(str(tmp_path), NAME) as source:
        source.digest()
        change(path)
        with pytest.raises(NotReady, match="it changed while it was read"):
            source.check_unchanged()


def test_an_identity_distinguishes_a_rename_from_every_other_change(tmp_path: Path) -> None:
    path = put(tmp_path, CONTENT)
    before = FileIdentity.of(path.stat())
    moved = path.rename(tmp_path / "moved")
    assert before.same_content_as(FileIdentity.of(moved.stat()))
    copy = put(tmp_path, CONTENT)
    os.utime(copy, ns=(before.mtime_ns, before.mtime_ns))
    assert not before.same_content_as(FileIdentity.of(copy.stat()))
    append(moved)
    assert not before.same_content_as(FileIdentity.of(moved.stat()))


def test_an_identity_goes_along_with_a_move_but_with_no_other_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, CONTENT)
    with open_file(str(tmp_path), NAME) as source:
        path = path.rename(tmp_path / "moved")
        assert source.identity_if_moved() == FileIdentity.of(path.stat()) != source.identity
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", FailingCall(os.fstat, 0))
            assert source.identity_if_moved() == source.identity
        append(path)
        assert source.identity_if_moved() == source.identity


# Its bytes and its text ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, MAX_SHARED_BYTES, MAX_SHARED_BYTES + 1])
def test_the_digest_is_that_of_the_bytes_as_dropped(tmp_path: Path, size: int) -> None:
    content = b"x" * size
    put(tmp_path, content)
    with open_file(str(tmp_path), NAME) as source:
        source.digest()
        assert source.sha256 == hashlib.sha256(content).digest()
        assert (source.content is not None) == (size <= MAX_SHARED_BYTES)


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"], ids=["", "mark"])
def test_the_text_is_the_same_in_every_packing(
    tmp_path: Path, pack: Callable[[bytes], bytes], before: bytes
) -> None:
    put(tmp_path, pack(before + CONTENT * 50))
    assert text_of(tmp_path) == CONTENT * 50


@pytest.mark.parametrize("pack", [PACKED[name] for name in COMPRESSED], ids=COMPRESSED)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_file_may_have_many_members(tmp_path: Path, pack: Callable[[bytes], bytes], size: int) -> None:
    parts = [CONTENT[start : start + size] for start in range(0, len(CONTENT), size)]
    put(tmp_path, b"".join(map(pack, parts)))
    assert count(tmp_path) == 50


def test_zeros_behind_gzip_data_are_padding(tmp_path: Path) -> None:
    put(tmp_path, gzip.compress(CONTENT) + bytes(1000))
    assert count(tmp_path) == 50


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
def test_a_file_that_was_cut_off_is_incomplete(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    content = pack(CONTENT)
    ends = {*range(0, len(content), 10), *range(20), *range(len(content) - 20, len(content))}
    for end in sorted(ends):
        put(tmp_path, content[:end])
        with pytest.raises(Incomplete):
            count(tmp_path)


def test_a_gzip_member_that_was_cut_off_is_incomplete_even_if_the_text_is_not(tmp_path: Path) -> None:
    whole, blank = gzip.compress(CONTENT), gzip.compress(b"\n")
    for end in range(2, len(blank)):
        put(tmp_path, whole + blank[:end])
        with pytest.raises(Incomplete):
            count(tmp_path)


@pytest.mark.parametrize("name", ["gzip", "zstd with checksum", "zstd streamed"])
def test_damage_is_never_taken_for_good(tmp_path: Path, name: str) -> None:
    content = PACKED[name](CONTENT)
    unchecked = range(10) if name == "gzip" else range(4)  # its header's time and system, its mark
    for at in range(len(unchecked), len(content)):
        put(tmp_path, content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        with pytest.raises((BadFile, Incomplete)):
            count(tmp_path)


@pytest.mark.parametrize("pack", [PACKED[name] for name in COMPRESSED], ids=COMPRESSED)
@pytest.mark.parametrize("tail", [b"garbage", b"{}", b"\0garbage"])
def test_garbage_behind_compressed_data_is_damage(
    tmp_path: Path, pack: Callable[[bytes], bytes], tail: bytes
) -> None:
    put(tmp_path, pack(CONTENT) + tail)
    with pytest.raises(BadFile, match="expected sound gzip or zstd data, got damaged data"):
        count(tmp_path)


def test_compressed_data_within_compressed_data_is_no_json(tmp_path: Path) -> None:
    put(tmp_path, gzip.compress(gzip.compress(CONTENT)))  # what is wrong first depends on the time in it
    with pytest.raises(BadFile, match="expected valid JSON"):
        count(tmp_path)


def gzip_member(content: bytes) -> bytes:
    """With everything that a header may have."""
    packer = zlib.compressobj(wbits=-15)
    header = b"\x1f\x8b\x08\x1f" + bytes(6) + struct.pack("<H5s", 5, b"extra") + b"name\0comment\0"
    header += struct.pack("<H", zlib.crc32(header) & 0xFFFF)
    packed = packer.compress(content) + packer.flush()
    return header + packed + struct.pack("<II", zlib.crc32(content), len(content))


SKIPPED = [bytes([0x50 + i]) + b"\x2a\x4d\x18" + struct.pack("<I", 5) + b"hello" for i in range(16)]
IN_TWO: dict[str, bytes] = {
    "gzip": gzip_member(CONTENT[:2000]) + gzip_member(CONTENT[2000:]),
    "zstd": zstd(CONTENT[:2000]) + zstd(CONTENT[2000:]),
    "zstd behind a skippable frame": SKIPPED[0] + zstd(CONTENT[:2000]) + SKIPPED[9] + zstd(CONTENT[2000:]),
}


@pytest.mark.parametrize("packed", IN_TWO.values(), ids=IN_TWO)
def test_every_beginning_of_two_compressed_parts_is_incomplete(tmp_path: Path, packed: bytes) -> None:
    put(tmp_path, packed)
    assert count(tmp_path) == 50
    for end in range(len(packed)):
        put(tmp_path, packed[:end])
        with pytest.raises(Incomplete):
            count(tmp_path)


@pytest.mark.parametrize("frame", SKIPPED)
def test_a_skippable_frame_of_zstd_is_passed_over(tmp_path: Path, frame: bytes) -> None:
    put(tmp_path, frame + zstd(CONTENT))
    assert count(tmp_path) == 50


def test_zstd_data_that_needs_a_dictionary_is_named(tmp_path: Path) -> None:
    dictionary = zstandard.train_dictionary(1024, [statuses(report(i)) for i in range(500)])
    for before in (b"", SKIPPED[3], zstd(CONTENT)):
        put(tmp_path, before + zstd(CONTENT, dict_data=dictionary))
        with pytest.raises(BadFile, match="expected zstd data without a dictionary, got some that needs one"):
            count(tmp_path)


@pytest.mark.parametrize(("log", "is_read"), [(27, True), (28, False), (31, False)])
def test_a_zstd_window_above_128_mb_is_named(tmp_path: Path, log: int, is_read: bool) -> None:
    """Its header alone has the size."""
    window = bytes([(log - 10) << 3])
    frame = zstd_streamed(CONTENT)
    assert frame[4] & 0x20 == 0  # not a single segment: the window stands behind the descriptor
    put(tmp_path, frame[:5] + window + frame[6:])
    if is_read:
        assert count(tmp_path) == 50
    else:
        with pytest.raises(BadFile, match="expected zstd data with a window of at most 134217728 bytes"):
            count(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_other_encodings_are_refused(tmp_path: Path, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    mark = {"utf-16-be": codecs.BOM_UTF16_BE, "utf-32-be": codecs.BOM_UTF32_BE}.get(encoding, b"")
    put(tmp_path, pack(mark + CONTENT.decode().encode(encoding)))
    with pytest.raises(BadFile, match="expected UTF-8, got UTF-16, UTF-32 or binary data"):
        count(tmp_path)


@pytest.mark.parametrize(
    "content", [bytes(5000), CONTENT.decode().encode("utf-16-be"), bytes(5000) + CONTENT]
)
def test_a_text_that_begins_with_zeros_is_incomplete(tmp_path: Path, content: bytes) -> None:
    put(tmp_path, content)
    with pytest.raises(Incomplete, match="it holds zeros in place of text at byte 0"):
        count(tmp_path)


def read_filled(source: LocalFile) -> None:
    try:
        read_source(source)
    except BadFile:
        check_filled(source)
        raise


def damaged(content: bytes, start: int, zeros: int) -> bytes:
    return content[:start] + bytes(zeros) + content[start + zeros :]


@pytest.mark.parametrize("name", PACKED)
def test_what_is_allocated_and_not_written_yet_is_incomplete(tmp_path: Path, name: str) -> None:
    """However it is filled: from the front, from the back, by pieces."""
    content = PACKED[name](statuses(*[report(i, vehicle=secrets.token_hex(16)) for i in range(500)]))
    holes = [(size, len(content) - size) for size in range(0, len(content) - 16, 997)]
    holes += [(0, size) for size in range(512, len(content), 997)]
    holes += [(start, 1024) for start in range(0, len(content) - 1024, 997)]
    for start, zeros in holes:
        put(tmp_path, damaged(content, start, zeros))
        with open_file(str(tmp_path), NAME) as source, pytest.raises(Incomplete):
            read_filled(source)


@pytest.mark.parametrize("name", PACKED)
def test_a_few_zeros_within_are_damage(tmp_path: Path, name: str) -> None:
    content = PACKED[name](statuses(*[report(i, vehicle=secrets.token_hex(16)) for i in range(500)]))
    put(tmp_path, damaged(content, len(content) // 2, 64))
    with open_file(str(tmp_path), NAME) as source, pytest.raises(BadFile):
        read_filled(source)


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
def test_a_longer_text_than_allowed_is_not_read(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    put(tmp_path, pack(CONTENT))
    assert count(tmp_path, len(CONTENT)) == 50
    with pytest.raises(TooLarge):
        count(tmp_path, len(CONTENT) - 1)


LONG_REPORT = json.dumps(report(note="x" * 4000)).encode() + b","
BOMB = """
import sys
from processing.errors import BadFile, TooLarge
from processing.document import Document
from sources.local_file import open_file
from processing.text import open_text
from tests.processing.support import own_peak
with open_file(sys.argv[1], sys.argv[2]) as source:
    source.digest()
    document = Document(sys.argv[2], lambda: open_text(source, int(sys.argv[3])), careful=False)
    try:
        for _ in document.parsed():
            pass
    except (BadFile, TooLarge) as error:
        print(type(error).__name__)
print(own_peak())
"""


@pytest.mark.parametrize("pack", [lambda text: gzip.compress(text, 1), zstd], ids=["gzip", "zstd"])
@pytest.mark.parametrize(
    ("text", "max_bytes", "verdict"),
    [
        (b'{"vehicle_status":[' + LONG_REPORT * 25_000, 50 * 2**20, "TooLarge"),
        (b'{"vehicle_status":["' + b"x" * 200 * 2**20, MAX_BYTES, "BadFile"),
    ],
    ids=["elements", "element"],
)
def test_a_bomb_is_bounded(
    tmp_path: Path, pack: Callable[[bytes], bytes], text: bytes, max_bytes: int, verdict: str
) -> None:
    assert put(tmp_path, pack(text)).stat().st_size < 2**20
    code = ["-c", BOMB, str(tmp_path), NAME, str(max_bytes)]
    printed, megabytes = peak(*code)
    assert printed == verdict
    assert megabytes < 160


# Whoever watches ---------------------------------------------------------------------------------


def test_each_step_in_reading_a_file_is_reported(tmp_path: Path) -> None:
    put(tmp_path, os.urandom(MAX_SHARED_BYTES))
    append(tmp_path / NAME)
    steps: list[None] = []
    with open_file(str(tmp_path), NAME, lambda: steps.append(None)) as source:
        source.digest()
        digested = len(steps)
        assert digested >= MAX_SHARED_BYTES / CHUNK_BYTES / 8  # hashlib reads larger chunks
        text = open_text(source, MAX_BYTES)
        read = sum(1 for _ in iter(lambda: text.read(CHUNK_BYTES), b""))
        assert len(steps) - digested >= read > MAX_SHARED_BYTES / CHUNK_BYTES
        before = len(steps)
        source.check_unchanged()
        assert len(steps) > before


def test_each_step_in_decompressing_is_reported(tmp_path: Path) -> None:
    """A few bytes of the file may be gigabytes of text."""
    put(tmp_path, gzip.compress(bytes(50_000_000).replace(b"\0", b" ")))
    steps: list[None] = []
    with open_file(str(tmp_path), NAME, lambda: steps.append(None)) as source:
        text = open_text(source, MAX_BYTES)
        for _ in iter(lambda: text.read(CHUNK_BYTES), b""):
            continue
    assert len(steps) > 50_000_000 / CHUNK_BYTES


# A disk that fails --------------------------------------------------------------------------------


PREADV = os.preadv


class FailingDisk:
    """Reads this many times, then fails."""

    def __init__(self, reads: int, number: int) -> None:
        self.left = reads
        self._number = number

    def __call__(self, fd: int, buffers: list[Any], offset: int) -> int:
        if self.left == 0:
            raise OSError(self._number, os.strerror(self._number))
        self.left -= 1
        return PREADV(fd, buffers, offset)


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_read_error_at_any_place_makes_the_file_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes], number: int
) -> None:
    put(tmp_path, pack(os.urandom(300_000).hex().encode()))
    for reads in range(100):
        disk = FailingDisk(reads, number)
        monkeypatch.setattr(os, "preadv", disk)
        try:
            text_of(tmp_path)
        except NotReady as error:
            assert str(error) == f"it can't be read: {os.strerror(number)}"
            continue
        break
    assert (disk.left, reads > 4) == (0, True)


@pytest.mark.parametrize("reads", [0, 1])
def test_a_digest_fails_with_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: int) -> None:
    put(tmp_path, bytes(300_000))
    monkeypatch.setattr(os, "preadv", FailingDisk(reads, errno.EIO))
    with open_file(str(tmp_path), NAME) as source, pytest.raises(NotReady, match="it can't be read"):
        source.digest()


class FailingCall:
    """Works this many times, then fails for ever."""

    def __init__(self, call: Callable[..., Any], times: int) -> None:
        self.left = times
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        if self.left == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.left -= 1
        return self._call(*arguments)


@pytest.mark.parametrize("times", range(3))
def test_a_disk_that_does_not_know_a_file_makes_it_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    put(tmp_path, CONTENT)
    with (
        monkeypatch.context() as patch,
        pytest.raises(NotReady, match="it can't be read: Input/output error"),
    ):
        patch.setattr(os, "fstat", FailingCall(os.fstat, times))
        with open_file(str(tmp_path), NAME) as source:
            source.check_unchanged()


def test_a_file_is_good_though_its_lease_is_not_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, CONTENT)
    monkeypatch.setattr(fcntl, "fcntl", FailingCall(fcntl.fcntl, 1))
    assert text_of(tmp_path) == CONTENT


def test_a_file_is_done_whatever_close_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, CONTENT)
    source = open_file(str(tmp_path), NAME)
    source.__enter__()
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", FailingCall(os.close, 0))
        source.__exit__(None, None, None)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for content in (CONTENT, CONTENT[:-1], gzip.compress(CONTENT)[:-1], b"NaN"):
        put(tmp_path, content)
        for _ in range(20):
            try:
                count(tmp_path)
            except (BadFile, NotReady):
                continue
    assert len(os.listdir("/proc/self/fd")) == before
