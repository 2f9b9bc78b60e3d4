"""Writes the embedded database into a file, and such a file into an empty database: whole, or not at all."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import RawIOBase
from pathlib import Path
from typing import IO

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from psycopg2.extensions import make_dsn, parse_dsn

from db import schema
from db.connection import Database, translate_errors
from db.embedded.keeper import ENVIRONMENT
from db.embedded.server import find_binaries
from processing.errors import DatabaseUnavailable, Misconfigured

_PARTIAL = ".part"

#: Tables first, then their rows, then what checks and finds these.
_SECTIONS = ("pre-data", "data", "post-data")

#: Lines for psql, and a setting that servers before 17 do not have.
_NOT_FOR_ALL = re.compile(rb"^(?:\\(?:un)?restrict .*|SET transaction_timeout = 0;)$", re.MULTILINE)

_COPY = re.compile(rb"COPY .* FROM stdin;\n")
_END_OF_COPY = b"\\.\n"

_MESSAGE_BYTES = 64 * 1024


def write(database: Database, target: Path) -> int:
    """Writes all of the database, as it is at one instant, into a file, and returns the size of that.

    Loads go on meanwhile. A file of that name is replaced, once the new one is complete.
    """
    parameters = parse_dsn(database.url)
    password = parameters.pop("password")
    partial = target.with_name(target.name + _PARTIAL)
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        options = ["--format=custom", f"--file={partial.absolute()}", f"--dbname={make_dsn(**parameters)}"]
        run = subprocess.run(
            [_program("pg_dump"), *options],
            env={**ENVIRONMENT, "PGPASSWORD": password},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        if run.returncode:
            raise DatabaseUnavailable(f"the backup failed: {_reason(run.stderr)}")
        _sync(partial)
        size = partial.stat().st_size
        partial.replace(target)
        _sync(target.absolute().parent)
        return size
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def check(source: Path) -> None:
    """Raises Misconfigured unless the file is a backup; only restoring it shows whether it is complete."""
    with _restoring(source, "--list") as output:
        output.read()


def read(connection: Connection, source: Path) -> None:
    """Reads a backup into a database without our tables; raises Misconfigured where there are some.

    Not by psql: psycopg2 knows TLS and keeps the password from the list of processes.
    """
    with translate_errors(), connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_database(), to_regclass('mobileye_data.ingested_files') IS NOT NULL")
        ((name, has_tables),) = cursor.fetchall()
        if has_tables:
            raise Misconfigured(
                f"the database {name} has tables of ours already: restore into a new DATA_FOLDER, "
                "or into an empty database of your server"
            )
        for section in _SECTIONS:
            with _restoring(source, f"--section={section}", "--no-owner", "--no-privileges") as output:
                _execute(cursor, output)
    schema.apply(connection, again=True)  # for what a backup does not carry along: who may call what


def _execute(cursor: Cursor, script: IO[bytes]) -> None:
    """Executes a script of pg_restore: between rows, which COPY takes, its statements are short."""
    statements: list[bytes] = []
    for line in script:
        if _COPY.fullmatch(line):
            _execute_all(cursor, statements)
            cursor.copy_expert(line.decode(), _Rows(script))
        else:
            statements.append(line)
    _execute_all(cursor, statements)


def _execute_all(cursor: Cursor, statements: list[bytes]) -> None:
    text = _NOT_FOR_ALL.sub(b"", b"".join(statements))
    statements.clear()
    if text.strip():
        cursor.execute(text + b";SELECT")  # a text of comments alone is none


class _Rows(RawIOBase):
    """The rows of one table in a script, as a file for COPY."""

    def __init__(self, script: IO[bytes]) -> None:
        self._script = script
        self._is_over = False

    def read(self, _size: int = -1, /) -> bytes:
        """Returns rows of about one message, whatever the size asked for; nothing after the last row."""
        rows: list[bytes] = []
        size = 0
        while not self._is_over and size < _MESSAGE_BYTES:
            row = self._script.readline()
            self._is_over = row in (_END_OF_COPY, b"")
            if not self._is_over:
                rows.append(row)
                size += len(row)
        return b"".join(rows)


@contextmanager
def _restoring(source: Path, *options: str) -> Iterator[IO[bytes]]:
    """Yields what pg_restore makes of the file; raises Misconfigured if it fails, if the block did not."""
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [_program("pg_restore"), *options, "--file=-", str(source.absolute())],
            env=ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
        )
        assert process.stdout is not None
        try:
            yield process.stdout
            process.stdout.read()
        except BaseException:
            process.kill()
            raise
        finally:
            process.stdout.close()
            process.wait()
        if process.returncode:
            complaints.seek(0)
            raise Misconfigured(f"{source} can't be restored: {_reason(complaints.read())}")


def _program(name: str) -> str:
    return str(find_binaries() / name)


def _reason(complaints: bytes) -> str:
    lines = [line for line in complaints.decode(errors="replace").splitlines() if "error:" in line]
    return lines[0].partition("error:")[2].strip() if lines else "it does not say why"


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
