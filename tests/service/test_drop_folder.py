"""What waits in the watch folder: the cheap measure agrees with the look at each file."""

import os
from pathlib import Path

import pytest

from config import Settings
from service.drop_folder import Looker, measure
from service.kept_client import KeptClient
from tests.support import drop


@pytest.mark.parametrize("names", [[], ["vehicles_status_1.json", "A.JSON.GZ", "b.json.zst"]])
def test_measure_counts_the_files_that_look_lists(tmp_path: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        os.utime(drop(tmp_path, name, b"{}" * (number + 1)), (1_000_000, 1_000_000 * number))
    (tmp_path / "folder.json").mkdir()
    (tmp_path / ".hidden.json").touch()
    (tmp_path / "other.csv").touch()
    (tmp_path / "link.json").symlink_to("nowhere")
    seen, measured = Looker(Settings(watch_folder=tmp_path), KeptClient(None)).look(0), measure(str(tmp_path))
    assert measured.error == ""
    assert (measured.files, measured.bytes) == (seen.files, seen.bytes)
    assert measured.files == len(names) + 1  # with the link, which will fail
    assert measured.oldest_seconds == pytest.approx(seen.oldest_seconds, abs=5)


def test_a_file_of_the_past_has_waited_since_it_came(tmp_path: Path) -> None:
    os.utime(drop(tmp_path, "a.json", b"{}"), (0, 0))
    age = measure(str(tmp_path)).oldest_seconds
    assert age is not None and age < 100


def test_an_empty_folder_has_no_oldest_file(tmp_path: Path) -> None:
    assert measure(str(tmp_path)).oldest_seconds is None


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert measure(str(tmp_path / "nothing")).error == "No such file or directory"
