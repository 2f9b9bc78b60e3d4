"""Files disposed of: deleted, archived or moved to failed/, and never another file in their place."""

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import sources.folder
from processing.errors import NotReady
from sources import rename
from sources.claims import CLAIMS, recover_claims
from sources.folder import FolderSource
from sources.local_file import FileIdentity, LocalFile, open_file
from sources.policy import OnLoaded
from tests.processing.support import WRITER, as_other_user, beside, give_to_other_user
from tests.support import ROOT

NAME = "vehicles_status_1.json"
DAY = re.compile(r"\d{4}-\d\d-\d\d")
NAMES = [
    b"a.json",
    b"x" * 250 + b".json",
    b"x" * 244 + b".json.gz",
    b"\xff\xfe.json",
    b"a\nb.json",
    b"a b;$(c)'\".json",
    "\u00e9".encode() * 120 + b".json",
    b"x." * 125 + b"json",
    b"." + b"x" * 249 + b".json",
]


class Folders:
    """A watch folder and those to which its files go."""

    def __init__(self, top: Path) -> None:
        self.incoming, self.failed, self.archive = (top / name for name in ("incoming", "failed", "archive"))
        for folder in (self.incoming, self.failed, self.archive):
            folder.mkdir()

    def source(self, on_loaded: OnLoaded = OnLoaded.DELETE) -> FolderSource:
        return FolderSource(str(self.incoming), str(self.failed), str(self.archive), on_loaded)

    def put(self, content: bytes = b"old", name: str = NAME) -> Path:
        path = self.incoming / name
        path.write_bytes(content)
        return path

    def replace(self, content: bytes, name: str = NAME) -> None:
        """As a producer does that drops whole files."""
        hidden = self.incoming / ".new"
        hidden.write_bytes(content)
        hidden.rename(self.incoming / name)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder that are no notes; those of the archive are in folders of their days."""
    days = [path for path in folder.iterdir() if DAY.fullmatch(path.name)]
    entries = [entry for path in [folder, *days] for entry in os.scandir(path)]
    found = {entry.name: Path(entry).read_bytes() for entry in entries if entry.is_file()}
    return {name: content for name, content in found.items() if not name.endswith(".reason.txt")}


def claimed(folder: Path) -> list[Path]:
    return list((folder / CLAIMS).glob("*/*"))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


@pytest.fixture
def open_folders() -> Iterator[Folders]:
    """Unlike pytest's own, they can be entered by other users."""
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        yield Folders(Path(top))


def loaded(source: FolderSource, file: LocalFile) -> None:
    source.complete(file)


def failed(source: FolderSource, file: LocalFile) -> None:
    source.quarantine(file, "it is bad")


ENDS = [
    pytest.param(loaded, OnLoaded.DELETE, id="delete"),
    pytest.param(loaded, OnLoaded.ARCHIVE, id="archive"),
    pytest.param(failed, OnLoaded.DELETE, id="failed"),
]
End = Callable[[FolderSource, LocalFile], None]


# Each end of a file -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_file_is_deleted(folders: Folders, name: bytes) -> None:
    folders.put(name=os.fsdecode(name))
    with open_file(str(folders.incoming), os.fsdecode(name)) as file:
        folders.source().complete(file)
    assert contents(folders.incoming) == contents(folders.failed) == contents(folders.archive) == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_file_is_archived_under_its_name(folders: Folders, name: bytes) -> None:
    folders.archive.rmdir()
    folders.archive.mkdir()
    folders.put(b"content", os.fsdecode(name))
    with open_file(str(folders.incoming), os.fsdecode(name)) as file:
        folders.source(OnLoaded.ARCHIVE).complete(file)
    assert contents(folders.archive) == {os.fsdecode(name): b"content"}
    (day,) = os.listdir(folders.archive)
    assert DAY.fullmatch(day)
    assert contents(folders.incoming) == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_file_is_set_aside_with_a_note(folders: Folders, name: bytes) -> None:
    folders.failed.rmdir()
    folders.put(b"content", os.fsdecode(name))
    with open_file(str(folders.incoming), os.fsdecode(name)) as file:
        target = Path(folders.source().quarantine(file, "a reason \udcff"))
    assert target.read_bytes() == b"content"
    assert Path(f"{target}.reason.txt").read_text() == "a reason \\udcff\n"
    assert (target.name == os.fsdecode(name)) == (len(name) <= 244)
    assert target.name.startswith(os.fsdecode(name[:100]))
    assert contents(folders.incoming) == {}


@pytest.mark.parametrize("name", ["a.json", "x" * 250 + ".json", "." + "x" * 249 + ".json"])
@pytest.mark.parametrize(("end", "on_loaded"), ENDS[1:])
def test_equal_names_never_replace_each_other(
    folders: Folders, name: str, end: End, on_loaded: OnLoaded
) -> None:
    source = folders.source(on_loaded)
    kept = folders.archive if end is loaded else folders.failed
    for number in range(1_000):
        folders.put(b"%d" % number, name)
        with open_file(str(folders.incoming), name) as file:
            end(source, file)
    assert sorted(map(int, contents(kept).values())) == list(range(1_000))
    notes = [path.name.removesuffix(".reason.txt") for path in kept.glob("*.reason.txt")]
    assert sorted(notes) == (sorted(contents(kept)) if end is failed else [])


def make_link(path: Path) -> None:
    (path.parent.parent / "target").write_bytes(b"secret")
    path.symlink_to("../target")


@pytest.mark.parametrize("make", [make_link, os.mkfifo, Path.mkdir])
def test_what_is_no_regular_file_is_set_aside_unopened(
    folders: Folders, make: Callable[[Path], None]
) -> None:
    path = folders.incoming / NAME
    make(path)
    before = os.lstat(path)
    target = folders.source().quarantine_unopened(NAME, "no regular file")
    after = os.lstat(target)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert Path(f"{target}.reason.txt").read_text() == "no regular file\n"
    assert not os.path.lexists(path)
    if make is make_link:
        assert (folders.incoming.parent / "target").read_bytes() == b"secret"


def test_a_file_that_took_the_name_of_a_link_is_left(folders: Folders) -> None:
    folders.put(b"good")
    with pytest.raises(NotReady, match="another file took its name"):
        folders.source().quarantine_unopened(NAME, "a link")
    assert contents(folders.incoming) == {NAME: b"good"}
    assert contents(folders.failed) == {}


# Never the wrong file -----------------------------------------------------------------------------


def rewrite(folders: Folders) -> None:
    folders.put(b"new")


def rewrite_in_secret(folders: Folders) -> None:
    """Of the same size, with the time set back."""
    path = folders.incoming / NAME
    status = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def append(folders: Folders) -> None:
    with (folders.incoming / NAME).open("ab") as file:
        file.write(b"more")


def make_copy(folders: Folders) -> None:
    """Same content, size and time: another file for all that."""
    path = folders.incoming / NAME
    status = path.stat()
    folders.replace(path.read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = {
    "replaced": lambda folders: folders.replace(b"new"),
    "rewritten": rewrite,
    "rewritten in secret": rewrite_in_secret,
    "appended": append,
    "copied": make_copy,
    "linked": lambda folders: ((folders.incoming / NAME).unlink(), (folders.incoming / NAME).symlink_to("x")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize(("end", "on_loaded"), ENDS)
def test_a_file_that_changed_after_it_was_read_stays(
    folders: Folders, end: End, on_loaded: OnLoaded, change: Callable[[Folders], object]
) -> None:
    path = folders.put()
    with open_file(str(folders.incoming), NAME) as file:
        change(folders)
        before = os.lstat(path)
        with pytest.raises(NotReady):
            end(folders.source(on_loaded), file)
    after = os.lstat(path)
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    )
    assert contents(folders.failed) == contents(folders.archive) == {}
    assert claimed(folders.incoming) == []


@pytest.mark.parametrize(("end", "on_loaded"), ENDS)
def test_a_file_that_is_gone_is_left_alone(folders: Folders, end: End, on_loaded: OnLoaded) -> None:
    path = folders.put()
    with open_file(str(folders.incoming), NAME) as file:
        path.unlink()
        with pytest.raises(NotReady):
            end(folders.source(on_loaded), file)
    assert contents(folders.incoming) == contents(folders.failed) == contents(folders.archive) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="leases show writers on Linux")
@pytest.mark.parametrize(("end", "on_loaded"), ENDS)
def test_a_file_that_a_writer_has_open_stays(folders: Folders, end: End, on_loaded: OnLoaded) -> None:
    path = folders.put()
    with open_file(str(folders.incoming), NAME) as file:
        with beside(WRITER, path), pytest.raises(NotReady, match="open for writing"):
            end(folders.source(on_loaded), file)
        assert contents(folders.incoming) == {NAME: b"old"}
        end(folders.source(on_loaded), file)
    assert contents(folders.incoming) == {}


def test_a_writer_that_opens_it_as_it_is_claimed_is_noticed(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, held = os.rename, []

    def open_and_rename(path: str, target: str) -> None:
        held.append(os.open(path, os.O_WRONLY))
        real(path, target)

    folders.put()
    monkeypatch.setattr(os, "rename", open_and_rename)
    with (
        open_file(str(folders.incoming), NAME) as file,
        pytest.raises(NotReady, match="a program has it open for writing"),
    ):
        folders.source().complete(file)
    os.close(held[0])
    assert contents(folders.incoming) == {NAME: b"old"}


def test_a_replacement_survives_with_its_name_at_any_instant(folders: Folders) -> None:
    source = folders.source()
    for number in range(300):
        name, new = f"{number}.json", b"new %d" % number
        folders.put(b"old", name)
        with open_file(str(folders.incoming), name) as file:
            racer = threading.Thread(target=folders.replace, args=(new, name))
            racer.start()
            with suppress(NotReady):
                source.complete(file)
            racer.join()
        assert contents(folders.incoming) == {name: new}
        (folders.incoming / name).unlink()
    assert claimed(folders.incoming) == []


def test_a_replacement_that_comes_while_another_is_put_back_keeps_its_name(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders.put()
    with open_file(str(folders.incoming), NAME) as file:
        folders.replace(b"second")
        real = os.rename

        def rename_and_replace(path: str, target: str) -> None:
            real(path, target)
            monkeypatch.setattr(os, "rename", real)
            folders.replace(b"third")

        monkeypatch.setattr(LocalFile, "check_unchanged", lambda file: None)
        monkeypatch.setattr(os, "rename", rename_and_replace)
        with pytest.raises(NotReady, match="another file took its name"):
            folders.source().complete(file)
    found = contents(folders.incoming)
    assert found.pop(NAME) == b"third"
    ((name, content),) = found.items()
    assert (content, name.endswith(".json")) == (b"second", True)


# Folders that fail --------------------------------------------------------------------------------


@pytest.mark.parametrize("on_loaded", OnLoaded)
def test_a_folder_that_cannot_be_written_keeps_its_file(open_folders: Folders, on_loaded: OnLoaded) -> None:
    open_folders.put().chmod(0o644)

    def dispose() -> None:
        with open_file(str(open_folders.incoming), NAME) as file:
            open_folders.source(on_loaded).complete(file)

    answer = as_other_user(dispose)
    assert answer == "NotReady: it can't be moved: Permission denied"
    assert contents(open_folders.incoming) == {NAME: b"old"}


@pytest.mark.parametrize(("end", "on_loaded"), ENDS[1:])
def test_a_target_that_cannot_be_written_keeps_the_file(
    open_folders: Folders, end: End, on_loaded: OnLoaded
) -> None:
    open_folders.incoming.chmod(0o777)
    give_to_other_user(open_folders.put())

    def dispose() -> None:
        with open_file(str(open_folders.incoming), NAME) as file:
            end(open_folders.source(on_loaded), file)

    assert as_other_user(dispose) == "NotReady: it can't be moved: Permission denied"
    assert contents(open_folders.incoming) == {NAME: b"old"}
    assert claimed(open_folders.incoming) == []


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize(("end", "on_loaded"), ENDS[1:])
def test_a_folder_on_another_disk_keeps_the_file_and_leaves_nothing(
    folders: Folders,
    other_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: End,
    on_loaded: OnLoaded,
    atomic: bool,
) -> None:
    if not atomic:
        monkeypatch.setattr(rename, "_renamed_atomically", lambda path, target: False)
    folders.put()
    source = FolderSource(str(folders.incoming), str(other_disk), str(other_disk), on_loaded)
    for _ in range(3):
        with (
            open_file(str(folders.incoming), NAME) as file,
            pytest.raises(NotReady, match="it can't be moved: Invalid cross-device link"),
        ):
            end(source, file)
    assert contents(folders.incoming) == {NAME: b"old"}
    assert contents(other_disk) == {}


def test_a_note_that_cannot_be_written_leaves_no_phantom(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(target: str, reason: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sources.disposal._write_note", full)
    folders.put()
    with (
        open_file(str(folders.incoming), NAME) as file,
        pytest.raises(NotReady, match="it can't be moved: No space left on device"),
    ):
        folders.source().quarantine(file, "bad")
    assert (contents(folders.incoming), contents(folders.failed)) == ({NAME: b"old"}, {})


def test_a_failed_folder_that_cannot_be_synced_gives_its_file_back(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sources.disposal._sync_folder", broken)
    folders.put()
    with (
        open_file(str(folders.incoming), NAME) as file,
        pytest.raises(NotReady, match="it can't be moved: Input/output error"),
    ):
        folders.source().quarantine(file, "bad")
    assert (contents(folders.incoming), os.listdir(folders.failed)) == ({NAME: b"old"}, [])


SET_ASIDE = """
import sys
from sources.folder import FolderSource
from sources.local_file import open_file
from sources.policy import OnLoaded
folder, failed, name = sys.argv[1:]
source = FolderSource(folder, failed, failed, OnLoaded.DELETE)
with open_file(folder, name) as file:
    source.quarantine(file, "it is bad")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="strace")
def test_a_power_cut_leaves_a_bad_file_whole_under_one_of_its_names(folders: Folders, tmp_path: Path) -> None:
    """Bytes before the name, note before its folder, both folders at last: the order of calls, by strace."""
    folders.put(b"bad")
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-y", "-o", str(trace), "-e", "trace=fsync,renameat2"]
    command = [sys.executable, "-c", SET_ASIDE, str(folders.incoming), str(folders.failed), NAME]
    subprocess.run([*strace, *command], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    target = folders.failed / NAME
    claimed_as = rf"{folders.incoming}/{re.escape(CLAIMS)}/\w+/{NAME}"
    expected = [
        rf"fsync\(\d+<{claimed_as}>\)",
        rf'renameat2\(.*, "{claimed_as}", .*, "{target}", RENAME_NOREPLACE\)',
        rf"fsync\(\d+<{target}.reason.txt>\)",
        rf"fsync\(\d+<{folders.failed}>\)",
        rf"fsync\(\d+<{folders.incoming}>\)",
    ]
    calls = [line for line in trace.read_text().splitlines() if " = 0" in line]
    assert len(calls) == len(expected), calls
    for call, pattern in zip(calls, expected, strict=True):
        assert re.search(pattern, call)


@pytest.mark.parametrize("atomic", [True, False])
def test_a_new_name_is_never_taken_from_another_file(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    if not atomic:
        monkeypatch.setattr(rename, "_renamed_atomically", lambda path, target: False)
    path, target = folders.put(b"a", "a.json"), folders.put(b"b", "b.json")
    with pytest.raises(FileExistsError):
        rename.rename_new(str(path), str(target))
    rename.rename_new(str(path), str(folders.incoming / "c.json"))
    assert contents(folders.incoming) == {"b.json": b"b", "c.json": b"a"}


# Where nobody can know who writes ------------------------------------------------------------------


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system."""
    monkeypatch.setattr("sources.local_file.is_remote", lambda fd: True)


def quick(folders: Folders, on_loaded: OnLoaded = OnLoaded.DELETE, seconds: float = 0.01) -> FolderSource:
    return FolderSource(str(folders.incoming), str(folders.failed), str(folders.archive), on_loaded, seconds)


def dispose(folders: Folders, source: FolderSource, name: str = NAME) -> None:
    with open_file(str(folders.incoming), name) as file:
        source.complete(file)


def tidy(source: FolderSource) -> None:
    """Until nothing is kept."""
    while (seconds := source.tidy()) is not None:
        time.sleep(seconds)


@pytest.mark.usefixtures("hidden")
@pytest.mark.parametrize("on_loaded", OnLoaded)
def test_a_loaded_file_is_kept_claimed_until_it_has_been_quiet(folders: Folders, on_loaded: OnLoaded) -> None:
    source = quick(folders, on_loaded, seconds=60)
    folders.put()
    dispose(folders, source)
    assert 0 < (source.tidy() or 0) <= 60
    assert [path.name for path in claimed(folders.incoming)] == [NAME]
    assert contents(folders.incoming) == contents(folders.archive) == {}
    source = quick(folders, on_loaded)
    folders.put(b"other")
    dispose(folders, source)
    tidy(source)
    assert [path.read_bytes() for path in claimed(folders.incoming)] == [b"old"]
    assert contents(folders.archive) == ({NAME: b"other"} if on_loaded is OnLoaded.ARCHIVE else {})


@pytest.mark.usefixtures("hidden")
@pytest.mark.parametrize("on_loaded", OnLoaded)
@pytest.mark.parametrize("close", [False, True])
def test_what_is_written_through_an_open_descriptor_makes_it_new_work(
    folders: Folders, on_loaded: OnLoaded, close: bool
) -> None:
    source = quick(folders, on_loaded)
    with folders.put().open("ab") as file:
        dispose(folders, source)
        file.write(b" and more")
    if close:
        source.close()
    else:
        tidy(source)
    assert contents(folders.incoming) == {NAME: b"old and more"}
    assert contents(folders.archive) == {} and claimed(folders.incoming) == []


@pytest.mark.usefixtures("hidden")
def test_what_is_written_just_before_it_is_kept_makes_it_new_work(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = sources.folder._look_anew

    def look_late(path: str) -> FileIdentity:
        with open(path, "ab") as file:
            file.write(b" and more")
        return look(path)

    monkeypatch.setattr(sources.folder, "_look_anew", look_late)
    folders.put()
    with pytest.raises(NotReady, match="it changed while it was claimed"):
        dispose(folders, quick(folders))
    assert contents(folders.incoming) == {NAME: b"old and more"}


@pytest.mark.usefixtures("hidden")
def test_a_second_file_of_the_name_never_takes_the_place_of_one_that_is_kept(folders: Folders) -> None:
    source = quick(folders)
    with folders.put(b"first").open("ab") as file:
        dispose(folders, source)
        folders.put(b"second")
        with pytest.raises(NotReady, match="one of its name is not removed yet"):
            dispose(folders, source)
        file.write(b" and more")
    tidy(source)
    found = contents(folders.incoming)
    assert found.pop(NAME) == b"second" and list(found.values()) == [b"first and more"]


@pytest.mark.usefixtures("hidden")
def test_closing_waits_once_for_all_that_is_kept(folders: Folders) -> None:
    source = quick(folders, seconds=0.1)
    for number in range(20):
        folders.put(name=f"{number}.json")
        dispose(folders, source, f"{number}.json")
    source.close()
    assert contents(folders.incoming) == {} and os.listdir(folders.incoming / CLAIMS) == []


@pytest.mark.usefixtures("hidden")
def test_what_is_kept_goes_with_its_folder(folders: Folders) -> None:
    source = quick(folders)
    folders.put()
    dispose(folders, source)
    folders.incoming.rename(folders.incoming.with_name("away"))
    tidy(source)
    assert len(claimed(folders.incoming.with_name("away"))) == 1


@pytest.mark.usefixtures("hidden")
def test_what_can_not_be_removed_is_kept_and_tried_again(folders: Folders) -> None:
    source = quick(folders, OnLoaded.ARCHIVE)
    folders.archive.rmdir()
    folders.archive.write_bytes(b"no folder")
    folders.put()
    dispose(folders, source)
    time.sleep(0.01)
    assert source.tidy() is not None
    folders.archive.unlink()
    folders.archive.mkdir()
    tidy(source)
    assert contents(folders.archive) == {NAME: b"old"} and claimed(folders.incoming) == []


# Claims of processes that died --------------------------------------------------------------------

#: Claims a file and stops where it would delete it.
CLAIMER = """
import os, sys
from sources.folder import FolderSource
from sources.local_file import open_file
from sources.policy import OnLoaded
folder, name = sys.argv[1:]
os.unlink = lambda path: input("ready\\n")
with open_file(folder, name) as file:
    FolderSource(folder, folder + "/failed", folder, OnLoaded.DELETE).complete(file)
"""


@pytest.mark.parametrize("name", NAMES)
def test_the_claim_of_a_killed_process_is_put_back(folders: Folders, name: bytes) -> None:
    folders.put(b"content", os.fsdecode(name))
    with beside(CLAIMER, folders.incoming, os.fsdecode(name)) as process:
        assert contents(folders.incoming) == {}
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert recover_claims(str(folders.incoming)) == [str(folders.incoming / os.fsdecode(name))]
    assert contents(folders.incoming) == {os.fsdecode(name): b"content"}
    assert list((folders.incoming / CLAIMS).iterdir()) == []


def test_the_claim_of_a_living_process_is_left(folders: Folders) -> None:
    folders.put()
    with beside(CLAIMER, folders.incoming, NAME) as process:
        assert recover_claims(str(folders.incoming)) == []
        assert len(claimed(folders.incoming)) == 1
        process.communicate("\n")
    assert len(recover_claims(str(folders.incoming))) == 1


def test_a_file_that_took_the_name_of_a_claim_keeps_it(folders: Folders) -> None:
    folders.put(b"claimed")
    with beside(CLAIMER, folders.incoming, NAME) as process:
        folders.put(b"new")
        process.kill()
        process.wait()
    (recovered,) = recover_claims(str(folders.incoming))
    assert contents(folders.incoming) == {NAME: b"new", os.path.basename(recovered): b"claimed"}
    assert recovered.endswith(".json")


def test_there_is_nothing_to_recover_in_a_new_folder(folders: Folders) -> None:
    assert recover_claims(str(folders.incoming)) == []
    assert recover_claims(str(folders.incoming / "none")) == []


class PassedOver(dict[str, str]):
    def __call__(self, path: str, error: OSError) -> None:
        self[Path(path).name] = os.strerror(error.errno or 0)


def test_what_is_no_private_folder_keeps_nothing_else_from_being_put_back(folders: Folders) -> None:
    claims, elsewhere = folders.incoming / CLAIMS, folders.incoming.with_name("elsewhere")
    for folder in (claims / "dead", elsewhere):
        folder.mkdir(parents=True)
        (folder / NAME).write_bytes(b"claimed")
    (claims / "file").touch()
    os.mkfifo(claims / "fifo")
    (claims / "link").symlink_to(elsewhere)
    passed_over = PassedOver()
    assert recover_claims(str(folders.incoming), passed_over) == [str(folders.incoming / NAME)]
    assert passed_over == dict.fromkeys(["file", "fifo", "link"], "Not a directory")
    assert os.listdir(elsewhere) == [NAME]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_the_claims_of_another_user_keep_nothing_else_from_being_put_back(
    open_folders: Folders, mode: int
) -> None:
    """Root's folder, which that user may not read, or may not take files out of."""
    open_folders.incoming.chmod(0o777)
    claims = open_folders.incoming / CLAIMS
    for name in ("root's", "own"):
        (claims / name).mkdir(parents=True)
        (claims / name / f"{name}.json").write_bytes(b"claimed")
    (claims / "root's").chmod(mode)
    give_to_other_user(claims / "own")
    give_to_other_user(claims)
    passed_over = PassedOver()

    def recover() -> tuple[list[str], dict[str, str]]:
        return [
            Path(path).name for path in recover_claims(str(open_folders.incoming), passed_over)
        ], passed_over

    stays = "root's" if mode == 0o700 else "root's.json"
    assert as_other_user(recover) == str((["own.json"], {stays: "Permission denied"}))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_folder_of_claims_that_can_not_be_read_is_passed_over(open_folders: Folders) -> None:
    (open_folders.incoming / CLAIMS).mkdir(mode=0o700)
    passed_over = PassedOver()
    recovered = as_other_user(lambda: (recover_claims(str(open_folders.incoming), passed_over), passed_over))
    assert recovered == str(([], {CLAIMS: "Permission denied"}))


def test_two_that_recover_never_lose_or_double_a_file(folders: Folders) -> None:
    for number in range(200):
        claim = folders.incoming / CLAIMS / f"dead{number}"
        claim.mkdir(parents=True)
        (claim / f"{number}.json").write_bytes(b"%d" % number)
    found: list[str] = []
    racers = [threading.Thread(target=lambda: found.extend(until_recovered(folders))) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(map(int, contents(folders.incoming).values())) == list(range(200))
    assert len(found) == 200


def until_recovered(folders: Folders) -> Iterator[str]:
    while os.listdir(folders.incoming / CLAIMS):
        yield from recover_claims(str(folders.incoming))


def test_a_source_goes_on_when_its_claims_folder_was_removed(folders: Folders) -> None:
    """And lets go of it: it may be on a disk that is to be unmounted."""
    source = folders.source()
    descriptors = []
    for _ in range(2):
        folders.put()
        with open_file(str(folders.incoming), NAME) as file:
            source.complete(file)
        for claims in (folders.incoming / CLAIMS).iterdir():
            claims.rmdir()
        descriptors.append(len(os.listdir("/dev/fd")))
    assert contents(folders.incoming) == {}
    assert descriptors[0] == descriptors[1]


def test_a_claims_folder_that_cannot_be_looked_at_is_reported_and_not_made_for_ever(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.stat

    def broken(path: Any, **options: Any) -> os.stat_result:
        if CLAIMS in str(path) and not str(path).endswith(CLAIMS):
            raise OSError(errno.EIO, "Input/output error")
        return stat(path, **options)

    folders.put()
    with (
        open_file(str(folders.incoming), NAME) as file,
        monkeypatch.context() as patch,
        pytest.raises(NotReady, match="it can't be moved: Input/output error"),
    ):
        patch.setattr(os, "stat", broken)
        folders.source().complete(file)
    assert contents(folders.incoming) == {NAME: b"old"}


def test_a_source_holds_its_claims_folder_locked(folders: Folders) -> None:
    source = folders.source()
    folders.put()
    with open_file(str(folders.incoming), NAME) as file:
        source.complete(file)
    (claims,) = (folders.incoming / CLAIMS).iterdir()
    lock = os.open(claims, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)


def test_a_file_loaded_from_the_failed_folder_takes_its_note_along(folders: Folders) -> None:
    folders.put()
    note = folders.put(b"why", f"{NAME}.reason.txt")
    source = FolderSource(str(folders.incoming), str(folders.incoming), "", OnLoaded.DELETE)
    with open_file(str(folders.incoming), NAME) as file:
        source.complete(file)
    source.close()
    assert not note.exists() and contents(folders.incoming) == {}
    assert list((folders.incoming / CLAIMS).iterdir()) == []


def test_a_note_in_the_watch_folder_is_left_alone(folders: Folders) -> None:
    folders.put()
    note = folders.put(b"of somebody", f"{NAME}.reason.txt")
    with open_file(str(folders.incoming), NAME) as file:
        folders.source().complete(file)
    assert note.exists()
