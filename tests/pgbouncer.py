"""PgBouncer between a test and its server."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from tests.support import free_port, until

needs_pgbouncer = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="needs pgbouncer")


@contextmanager
def pooled(url: str, mode: str, size: int = 20) -> Iterator[str]:
    """The URL of the same database through a pooler of that mode, with at most that many sessions."""
    parts, port = parse_dsn(url), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "users").write_text(f'"{parts["user"]}" "{parts["password"]}"\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={parts['host']} port={parts['port']}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = plain\nauth_file = {folder}/users\n"
            f"pool_mode = {mode}\ndefault_pool_size = {size}\n"
        )
        folder.chmod(0o755)
        # It refuses to run as root.
        user = "nobody" if os.geteuid() == 0 else None
        with open(folder / "log", "wb") as log:
            command = ["pgbouncer", str(folder / "pgbouncer.ini")]
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", user=user)
        through = f"postgresql://{parts['user']}:{parts['password']}@127.0.0.1:{port}/{parts['dbname']}"
        try:
            until(lambda: _answers(through), 10, "pgbouncer answers")
            yield through
        finally:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    with suppress(psycopg2.OperationalError):
        psycopg2.connect(url).close()
        return True
    return False
