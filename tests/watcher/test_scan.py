"""The scan: which names are accepted, and which files of a folder are listed."""

import os
import socket
from pathlib import Path

import pytest

from tests.support import drop
from watcher.scan import is_wanted, waiting, with_status


@pytest.mark.parametrize(
    "name",
    [
        "objects_detection_1.json",
        "vehicles_status_1.json.gz",
        "x.json.zst",
        "a name with spaces, ünïcode and\na newline.json",
        "-rf.json",
        os.fsdecode(b"\xff\xfe.json"),
        "x.tmp.json",
        "X.JSON",
        "x.Json.GZ",
        "x.json.ZST",
    ],
)
def test_wanted(name: str) -> None:
    assert is_wanted(name)


@pytest.mark.parametrize(
    "name",
    [
        ".x.json",
        ".json",
        ".objects_detection_1.json.Ab12Cd",
        "x.json.tmp",
        "x.json.part",
        "x.json.filepart",
        "x.json.gz.part",
        "x.json~",
        "x.json.bak",
        "x.jsonl",
        "x.csv",
        "x.gz",
        "json",
        "",
    ],
)
def test_not_wanted(name: str) -> None:
    assert not is_wanted(name)


def test_the_names_are_sorted_without_folders_and_files_being_written(tmp_path: Path) -> None:
    for name in ("b.json", "a.json.gz", "c.json.zst", ".d.json", "e.json.part", "f.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "folder.json" / "inside.json").touch()
    assert waiting(str(tmp_path)) == ["a.json.gz", "b.json", "c.json.zst"]


def test_links_pipes_and_sockets_are_listed_so_that_they_can_fail_with_a_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "link_to_folder.json").symlink_to(tmp_path)
    (tmp_path / "link_to_nothing.json").symlink_to("nothing")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.json"))
    assert waiting(str(tmp_path)) == [
        "fifo.json",
        "link_to_folder.json",
        "link_to_nothing.json",
        "socket.json",
    ]


def test_a_missing_folder_is_an_error_not_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        waiting(str(tmp_path / "nowhere"))


def test_the_files_are_listed_with_their_status(tmp_path: Path) -> None:
    drop(tmp_path, "a.json", b"12345")
    (tmp_path / "link.json").symlink_to("/etc/passwd")
    found = {name: status.st_size for name, status in with_status(str(tmp_path), waiting(str(tmp_path)))}
    assert found == {"a.json": 5, "link.json": len("/etc/passwd")}
