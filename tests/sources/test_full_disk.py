"""A full disk: files are disposed of, with a private folder made before, or without one."""

import os
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from db.connection import Database
from processing.errors import NotReady
from sources.claims import recover_claims
from sources.folder import FolderSource
from sources.local_file import open_file
from sources.policy import OnLoaded
from tests.support import Daemon, report, statuses

pytestmark = pytest.mark.mounts

NAMES = [f"vehicles_status_{number}.json" for number in range(3)]


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small file system with the files, and as few inodes and blocks as they take once it is filled."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    if request.param == "tmpfs":
        mount: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=16", "none", mounted]
    else:
        image = tmp_path / "image"
        os.truncate(os.open(image, os.O_CREAT | os.O_RDWR), 1 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-N", "32", image], check=True)
        mount = ["mount", "-o", "loop", image, mounted]
    subprocess.run(mount, check=True)
    (mounted / "incoming").mkdir()
    for name in NAMES:
        (mounted / "incoming" / name).write_bytes(name.encode())
    yield mounted
    subprocess.run(["umount", "-l", mounted], check=True)


def fill(disk: Path) -> None:
    """Leaves neither an inode nor a block."""
    for number in count():
        try:
            with open(disk / f"full{number}", "wb", buffering=0) as file:
                while file.write(b"x" * 4096):
                    pass
        except OSError:
            if not (disk / f"full{number}").exists():
                break
    with pytest.raises(OSError, match="No space left"):
        (disk / "folder").mkdir()


def source_of(disk: Path, quiet_seconds: float = 0.05) -> FolderSource:
    failed = disk / "incoming" / "failed"
    return FolderSource(str(disk / "incoming"), str(failed), "", OnLoaded.DELETE, quiet_seconds)


def complete(source: FolderSource, disk: Path, name: str, *, hides_writers: str = "") -> None:
    with open_file(str(disk / "incoming"), name) as file:
        file.hides_writers = hides_writers
        source.complete(file)


def listed(disk: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(disk / "incoming") if not entry.is_dir())


def test_a_daemon_started_on_a_full_disk_loads_all_that_is_there(
    disk: Path, tmp_path: Path, database: Database
) -> None:
    daemon = Daemon(tmp_path, database.url, WATCH_FOLDER=disk / "incoming")
    for number, name in enumerate(NAMES):
        (disk / "incoming" / name).write_bytes(statuses(report(number)))
    fill(disk)
    assert daemon.start("--once", wait=False).wait() == 0
    assert listed(disk) == []


@pytest.mark.parametrize("is_made_before", [True, False])
@pytest.mark.parametrize("hides_writers", ["", "another user's file"])
def test_a_full_disk_empties_itself(disk: Path, is_made_before: bool, hides_writers: str) -> None:
    if not is_made_before:
        fill(disk)
    source = source_of(disk)
    if is_made_before:
        fill(disk)
    for name in NAMES:
        complete(source, disk, name, hides_writers=hides_writers)
    assert recover_claims(str(disk / "incoming")) == []
    source.close()
    assert listed(disk) == []


def test_a_bad_file_stays_on_a_full_disk_and_the_others_go(disk: Path) -> None:
    (disk / "incoming" / "link.json").symlink_to("nowhere")
    fill(disk)
    source = source_of(disk)
    with open_file(str(disk / "incoming"), NAMES[0]) as file, pytest.raises(NotReady):
        source.quarantine(file, "bad")
    with pytest.raises(NotReady, match="the disk is full"):
        source.quarantine_unopened("link.json", "a link")
    complete(source, disk, NAMES[1])
    source.close()
    assert listed(disk) == ["link.json", NAMES[0], NAMES[2]]


def test_a_claim_without_a_private_folder_is_recovered_only_from_the_dead(disk: Path) -> None:
    incoming = disk / "incoming"
    fill(disk)
    complete(source_of(disk, quiet_seconds=60), disk, NAMES[0], hides_writers="another user's file")
    (claimed,) = incoming.glob(".claimed-*")
    dead = claimed.rename(incoming / f".claimed-01234567-{NAMES[0]}")
    assert recover_claims(str(incoming)) == [], "its lock is held"
    other = incoming / f".claimed-89abcdef-{NAMES[1]}"
    (incoming / NAMES[1]).rename(other)
    assert recover_claims(str(incoming)) == [str(incoming / NAMES[1])]
    assert dead.exists() and listed(disk)[1:] == NAMES[1:]


def test_a_file_that_is_replaced_as_it_is_claimed_is_put_back_on_a_full_disk(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def replaced_before(path: str, target: str) -> None:
        rename(disk / "incoming" / NAMES[1], disk / "incoming" / NAMES[0])
        rename(path, target)

    fill(disk)
    source = source_of(disk)
    monkeypatch.setattr(os, "rename", replaced_before)
    with pytest.raises(NotReady, match="another file took its name"):
        complete(source, disk, NAMES[0])
    assert (disk / "incoming" / NAMES[0]).read_text() == NAMES[1]
