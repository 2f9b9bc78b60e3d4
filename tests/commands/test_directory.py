"""The directory that the daemon is started in: it may be removed or replaced, and everything goes on."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from db.connection import Database
from tests.support import ROOT, Daemon, drop, report, statuses


class Elsewhere(Daemon):
    """A daemon whose folders are not in the directory that it is started in."""

    def __init__(self, folder: Path, url: str | None) -> None:
        incoming = folder.with_name("incoming")
        settings = {"WATCH_FOLDER": incoming, "DATA_FOLDER": folder.with_name("data"), "WORKERS": 1}
        super().__init__(folder, url, **settings)
        self.incoming, self.failed, self._log = incoming, incoming / "failed", folder.with_name("log")

    def drop(self, name: str, content: bytes) -> Path:
        return drop(self.incoming, name, content)


@pytest.mark.parametrize("is_replaced", [False, True])
@pytest.mark.parametrize("is_embedded", [False, True])
def test_everything_goes_on_without_the_directory_of_the_start(
    tmp_path: Path, database: Database, is_replaced: bool, is_embedded: bool
) -> None:
    daemon = Elsewhere(tmp_path / "start", None if is_embedded else database.url)
    daemon.start()
    daemon.drop("vehicles_status_first.json", statuses(report(second=1)))
    daemon.until_empty()  # or the worker might still be starting, in the directory that goes
    (worker,) = daemon.workers()
    shutil.rmtree(daemon.folder)
    if is_replaced:
        daemon.folder.mkdir()
    worker.kill()  # another one has to be started
    daemon.drop("vehicles_status_good.json", statuses(report()))
    daemon.drop("vehicles_status_bad.json", b"[]")
    daemon.until_empty()
    assert daemon.stop() == 0
    log = daemon.log()
    assert " loaded file=vehicles_status_good.json " in log and "Traceback" not in log
    assert " moved_to=../incoming/failed/vehicles_status_bad.json " in log


def test_a_start_in_a_directory_that_is_gone_ends_with_a_sentence(tmp_path: Path) -> None:
    command = f'rmdir "$PWD"; exec {sys.executable} {ROOT / "main.py"} --once'
    daemon = Daemon(tmp_path, "postgresql://127.0.0.1:1/d")
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        command, shell=True, cwd=tmp_path / "gone", env=daemon.environment(), capture_output=True, text=True
    )
    assert done.returncode in (1, 2) and done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1 and "the current directory is gone" in done.stderr
