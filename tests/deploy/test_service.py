"""The service of systemd: its unit is valid and closed, and the daemon works within what it allows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.prometheus import DEPLOY
from tests.support import ROOT, Daemon, report, statuses, until

UNIT = DEPLOY / "systemd" / "mobileye.service"
LOGROTATE = DEPLOY / "logrotate" / "mobileye"
PAGE = ROOT / "docs" / "service.md"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
needs_logrotate = pytest.mark.skipif(shutil.which("logrotate") is None, reason="needs logrotate")

#: Denies memory that is both written and executed, as MemoryDenyWriteExecute does, then starts the program.
_DENY_EXECUTION = """
import ctypes, os, sys
assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


#: As root, the embedded database takes another user, which the service is already.
_OF_ROOT = {"chown", "setgroups", "setreuid"} if os.geteuid() == 0 else set()


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={"SYSTEMD_COLORS": "0", "PATH": "/usr/bin:/bin"}
    )


def copy(path: Path, target: Path) -> None:
    """Writes a file of the unit with the program where it is here."""
    text = path.read_text()
    for there, ours in (("/opt/mobileye/.venv/bin/python", sys.executable), ("/opt/mobileye", str(ROOT))):
        assert there in text
        text = text.replace(there, ours)
    target.write_text(text)


@needs_systemd
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    copy(UNIT, unit)
    done = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize(("name", "command"), [("consume@", "consume@1"), ("publish", "publish")])
def test_systemd_accepts_the_unit_with_a_drop_in(name: str, command: str, tmp_path: Path) -> None:
    word = name.removesuffix("@")
    drop_in = tmp_path / f"mobileye-{name}.service.d" / f"{word}.conf"
    drop_in.parent.mkdir()
    copy(UNIT, tmp_path / f"mobileye-{name}.service")
    copy(UNIT.with_name(drop_in.name), drop_in)
    done = analyze("verify", "--man=no", "--recursive-errors=no", tmp_path / f"mobileye-{command}.service")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert f"main.py {word}\n" in drop_in.read_text()


@needs_systemd
def test_the_unit_is_as_closed_as_the_page_says() -> None:
    done = analyze("security", "--offline=true", "--no-pager", UNIT)
    score = re.search(r"Overall exposure level for mobileye.service: ([\d.]+)", done.stdout)
    documented = re.search(r"exposure level ([\d.]+)", PAGE.read_text())
    assert score and documented
    assert float(score[1]) <= float(documented[1]), done.stdout


def allowed_calls() -> set[str]:
    """The system calls that the unit allows."""
    names: set[str] = set()
    for value in re.findall(r"^SystemCallFilter=(.+)$", UNIT.read_text(), re.MULTILINE):
        group = {call for word in value.removeprefix("~").split() for call in _calls(word)}
        names = names - group if value.startswith("~") else names | group
    assert names
    return names


def _calls(group: str) -> set[str]:
    words = {
        line.strip()
        for line in analyze("syscall-filter", group).stdout.splitlines()[1:]
        if line.strip() and not line.strip().startswith("#")
    }
    return {call for word in words for call in (_calls(word) if word.startswith("@") else {word})}


@needs_systemd
@needs_strace
def test_daemon_and_embedded_database_make_only_system_calls_that_the_unit_allows(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    daemon = Daemon(tmp_path, None, METRICS_ADDRESS="127.0.0.1:0", NOTIFY_SOCKET="@mobileye-test")
    daemon.prefix = ("strace", "-f", "-qq", "-c", "-U", "name", "-o", str(calls))
    daemon.start(wait=False)
    daemon.drop("vehicles_status_1.json", statuses(report()))
    daemon.drop("objects_detection_1.json", b"[]")
    until(lambda: " loaded file=" in daemon.log() and " failed file=" in daemon.log(), 110)
    assert daemon.process is not None
    subprocess.run(["pkill", "-TERM", "-P", str(daemon.process.pid)], check=True)  # strace's own child
    daemon.wait()
    made = set(re.findall(r"^\s*([a-z_]\w+)\s*$", calls.read_text(), re.MULTILINE)) - {"syscall", "total"}
    assert {"openat", "fcntl", "execve"} <= made
    assert made - allowed_calls() - _OF_ROOT == set()


def test_daemon_and_embedded_database_work_without_memory_that_is_written_and_executed(
    tmp_path: Path,
) -> None:
    daemon = Daemon(tmp_path, None)
    daemon.prefix = (sys.executable, "-c", _DENY_EXECUTION)
    daemon.start(wait=False)
    daemon.drop("vehicles_status_1.json", statuses(report()))
    until(lambda: " loaded file=" in daemon.log(), 60)
    assert daemon.stop() == 0


@needs_logrotate
def test_a_log_file_is_rotated_while_the_daemon_writes(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "daemon", None)  # its log is opened for appending, as by systemd
    rules = tmp_path / "rules"
    text = LOGROTATE.read_text()
    assert "/var/log/mobileye/*.log" in text
    rules.write_text(f"su root root\n{text.replace('/var/log/mobileye/*.log', str(daemon.folder / 'log'))}")
    daemon.start()
    before = daemon.log()
    daemon.drop("vehicles_status_1.json", statuses(report()))
    until(lambda: " loaded file=" in daemon.log())
    command = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(rules)]
    subprocess.run(command, check=True)
    rotated = (daemon.folder / "log.1").read_text()
    assert rotated.startswith(before) and " loaded file=vehicles_status_1.json" in rotated
    assert " loaded " not in daemon.log()
    daemon.drop("vehicles_status_2.json", statuses(report(1)))
    until(lambda: " loaded file=vehicles_status_2.json" in daemon.log())
    assert "\0" not in daemon.log()  # no hole where the old lines were
    assert daemon.stop() == 0
