"""The number of workers: what the machine and the server have for them."""

import os
from pathlib import Path

import pytest

from service.capacity import most_workers, usable_cpus
from tests.support import Daemon, Server, until


def cpus_of(folder: Path, group: str, files: dict[str, str]) -> int:
    (folder / "group").write_text(group)
    for name, text in files.items():
        (folder / "groups" / name).mkdir(parents=True, exist_ok=True)
        (folder / "groups" / name / "cpu.max").write_text(text)
    return usable_cpus(folder / "group", folder / "groups")


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("group", "files", "cpus"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {".": "max 100000\n"}, 8),
        ("0::/\n", {".": "200000 100000\n"}, 2),
        ("0::/\n", {".": "150000 100000\n"}, 2),
        ("0::/\n", {".": "5000 100000\n"}, 1),
        ("0::/\n", {".": "6400000 100000\n"}, 8),
        ("0::/a/b\n", {"a/b": "max 100000\n", "a": "300000 100000\n"}, 3),
        ("0::/a/b\n", {"a/b": "100000 100000\n", "a": "300000 100000\n"}, 1),
        ("12:cpu:/x\n0::/a\n", {"a": "400000 100000\n", "x": "100000 100000\n"}, 4),
        ("0::/../..\n", {".": "200000 100000\n"}, 2),
        ("0::/a\n", {"a": "nonsense\n"}, 8),
        ("0::/a\n", {"a": "1 0\n"}, 8),
        ("", {}, 8),
    ],
)
def test_the_quota_of_a_container_counts(
    tmp_path: Path, group: str, files: dict[str, str], cpus: int
) -> None:
    assert cpus_of(tmp_path, group, files) == cpus


def test_without_control_groups_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cpus(tmp_path / "none", tmp_path / "none") == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert usable_cpus(tmp_path / "none", tmp_path / "none") == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus(tmp_path / "none", tmp_path / "none") == 1


@pytest.mark.parametrize(
    ("connections", "workers"), [(97, 43), (47, 18), (40, 15), (12, 4), (5, 2), (2, 1), (1, 1)]
)
def test_a_worker_may_need_two_connections_and_others_some(connections: int, workers: int) -> None:
    assert most_workers(connections) == workers


def test_more_workers_than_connections_make_no_outage(tmp_path: Path, server: Server) -> None:
    with server.database() as database:
        name = database.url.rpartition("/")[2]
        server.execute(f"CREATE ROLE r_{name} LOGIN PASSWORD 'hush' CONNECTION LIMIT 9")
        server.execute(f"ALTER DATABASE {name} OWNER TO r_{name}")
        daemon = Daemon(tmp_path, server.url(name, f"r_{name}", "hush"), WORKERS=12).start()
        try:
            line = until(lambda: [line for line in daemon.log().splitlines() if " fewer workers " in line])
            assert all(part in line[0] for part in ("workers=3", "wanted=12", "connections=9"))
            assert " watching " in daemon.log() and " workers=3 " in daemon.log()
            assert "waiting" in daemon.command("status").stdout
            assert " waiting for the database " not in daemon.log()
        finally:
            daemon.stop()
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")
            server.execute(f"DROP ROLE r_{name}")
