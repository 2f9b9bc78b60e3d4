"""Root's commands beside the service of another user: no file of root's locks that user out."""

import os
import shutil
from pathlib import Path

import pytest

from sources.folder import FolderSource
from sources.policy import OnLoaded
from tests.processing.support import OTHER_USER
from tests.support import Daemon, report, statuses

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")


def test_root_is_refused_the_database_of_another_users_service(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, None)
    daemon.drop("vehicles_status_1.json", statuses(report()))
    assert daemon.start("--once", wait=False).wait() == 0
    data = tmp_path / "data"
    shutil.chown(data / "users.lock", OTHER_USER)
    before = {path: path.stat().st_uid for path in data.iterdir()}
    done = daemon.command("status")
    expected = f"error: {data} is of the user nobody: run this command as that user, not as root\n"
    assert (done.returncode, done.stderr) == (2, expected)
    assert {path: path.stat().st_uid for path in data.iterdir()} == before


def test_claims_belong_to_the_owner_of_the_watch_folder(tmp_path: Path) -> None:
    shutil.chown(tmp_path, OTHER_USER)
    source = FolderSource(str(tmp_path), str(tmp_path / "failed"), "", OnLoaded.DELETE)
    made = [tmp_path / ".claimed", *(tmp_path / ".claimed").iterdir()]
    assert [path.stat().st_uid for path in made] == [OTHER_USER, OTHER_USER]
    source.close()
