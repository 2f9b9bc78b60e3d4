"""Stops PostgreSQL, or provokes its errors, and repairs it again."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress

import psutil
import psycopg2

from tests.chaos.rig import Figure, Finding, Rig, Trial, p99
from tests.support import Server, query, until

#: Makes a server fail for the duration of the block.
Failure = Callable[[Server, Rig], AbstractContextManager[None]]

_ROLE, _PASSWORD = "loader", "chaos-secret"
_RESUME = 10.0


def restarts(trial: Trial) -> Finding:
    """Terminates backends, or stops the server fast, at once or by SIGKILL, all under load."""
    resumed: list[float] = []
    ways: tuple[Failure, ...] = (_terminated, _stopped_fast, _stopped_at_once, _killed)
    with trial.rig() as rig:
        with rig.loaded(producers=2):
            for number in trial.rounds():
                time.sleep(trial.rng.uniform(0, 0.5))
                with ways[number % len(ways)](trial.server, rig):
                    pass
                resumed.append(_seconds_until_commit(rig))
        return rig.finding(Figure("resumed p99", p99(resumed), _RESUME))


def codes(trial: Trial) -> Finding:
    """Provokes each SQLSTATE that must not cost a file, for real, then repairs the cause."""
    resumed: list[float] = []
    complaints: list[str] = []
    with trial.rig(WORKERS=1) as rig:
        _use_a_role(trial.server, rig)
        with rig.watched():
            for number in trial.rounds():
                code, provoke = list(_CODES.items())[number % len(_CODES)]
                rig.drop(trial.rng.randint(1, 300))
                with provoke(trial.server, rig):
                    rig.drop(trial.rng.randint(1, 300))
                    if not _is_reported(rig, code):
                        complaints.append(f"{code} is not reported: {rig.daemon.log()[-600:]}")
                started = time.monotonic()
                rig.revive()
                rig.drain()
                resumed.append(time.monotonic() - started)
        finding = rig.finding(Figure("resumed p99", p99(resumed), _RESUME))
    finding.complaints += complaints
    return finding


def _seconds_until_commit(rig: Rig) -> float:
    since, started = rig.now(), time.monotonic()
    rig.revive()
    rig.until_commit(since)
    return time.monotonic() - started


def _is_reported(rig: Rig, code: str) -> bool:
    """Returns whether the log names the fault, and the daemon waits, or has ended if a person must fix it."""
    words = _WORDS[code]
    with suppress(AssertionError, subprocess.TimeoutExpired):
        if code in _FATAL and rig.daemon.wait(15) != _MISCONFIGURED:
            return False
        until(lambda: any(words in line for line in rig.daemon.log().splitlines()[-20:]), 15)
        return True
    return False


# Restarts -----------------------------------------------------------------------------------------


@contextmanager
def _terminated(server: Server, rig: Rig) -> Iterator[None]:
    _terminate(server, rig)
    yield


def _terminate(server: Server, rig: Rig) -> None:
    server.execute(
        f"""
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = '{_name(rig)}' AND application_name = 'mobileye-data'
        """
    )


def _restarted(number: signal.Signals) -> Failure:
    @contextmanager
    def stopped(server: Server, rig: Rig) -> Iterator[None]:
        server.stop(number)
        yield
        server.start("fsync=off")

    return stopped


_stopped_fast = _restarted(signal.SIGINT)
_stopped_at_once = _restarted(signal.SIGQUIT)


@contextmanager
def _killed(server: Server, rig: Rig) -> Iterator[None]:
    """Kills the postmaster and all its processes with SIGKILL, as a crash of the machine would."""
    server.stop(signal.SIGKILL)
    for process in _processes(server):
        process.kill()
    until(lambda: not _processes(server), 10, "no process of the server is left")
    yield
    server.start("fsync=off")


def _processes(server: Server) -> list[psutil.Process]:
    """Returns the server's processes, found by their working folder: the postmaster may have gone already."""
    found = []
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] == str(server.folder / "data") and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


# SQLSTATEs ----------------------------------------------------------------------------------------


def _use_a_role(server: Server, rig: Rig) -> None:
    """Makes the daemon log in with an ordinary role, because most of the faults do not affect a superuser."""
    name = _name(rig)
    server.execute(f"DROP ROLE IF EXISTS {_ROLE}")
    server.execute(f"CREATE ROLE {_ROLE} LOGIN PASSWORD '{_PASSWORD}'")
    server.execute(f"GRANT ALL ON DATABASE {name} TO {_ROLE}")
    query(
        rig.url,
        f"""
        DO $$ DECLARE item record; BEGIN
            ALTER SCHEMA mobileye_data OWNER TO {_ROLE};
            FOR item IN SELECT c.oid::regclass AS name, c.relkind FROM pg_class c
                        WHERE relnamespace = 'mobileye_data'::regnamespace AND relkind IN ('r', 'p', 'S', 'v')
            LOOP
                EXECUTE format('ALTER %s %s OWNER TO {_ROLE}', CASE item.relkind
                    WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, item.name);
            END LOOP;
            ALTER FUNCTION mobileye_data.add_partition OWNER TO {_ROLE};
        END $$
        """,
    )
    rig.daemon.url = server.url(name, _ROLE, _PASSWORD)


def _by(harm: str, repair: str, *, at_once: bool = True) -> Failure:
    """Makes a failure of two statements, cause and repair; `at_once` also ends open connections."""

    @contextmanager
    def provoked(server: Server, rig: Rig) -> Iterator[None]:
        name = _name(rig)
        server.execute(harm.format(name=name), name)
        if at_once:
            _terminate(server, rig)
        try:
            yield
        finally:
            query(server.url(name) + _WRITABLE, repair.format(name=name))
            if at_once:
                _terminate(server, rig)

    return provoked


@contextmanager
def _cancelled(server: Server, rig: Rig) -> Iterator[None]:
    """Cancels a statement that waits for a lock (57014)."""
    with _held(server, rig, "LOCK TABLE mobileye_data.ingested_files IN EXCLUSIVE MODE"):
        rig.drop(12)
        until(lambda: _blocked(server, rig), 20, "the daemon waits for the lock")
        server.execute(
            f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = '{_name(rig)}' "
            "AND application_name = 'mobileye-data'"
        )
        yield


@contextmanager
def _deadlocked(server: Server, rig: Rig) -> Iterator[None]:
    """Takes two locks of the daemon in the other order, with more patience than the daemon (40P01)."""
    first, second = "mobileye_data.ingested_files", "mobileye_data.objects_detection_events"
    with _held(server, rig, f"SET deadlock_timeout = '20s'; LOCK TABLE {first} IN EXCLUSIVE MODE") as cursor:
        file = rig.journal.draw(rig.rng, 12, "objects_detection")
        rig.journal.add(file)
        rig.daemon.drop(file.name, file.content())
        until(lambda: _blocked(server, rig), 20, "the daemon waits for the lock")
        cursor.execute(f"LOCK TABLE {second} IN EXCLUSIVE MODE")
        yield


@contextmanager
def _held(server: Server, rig: Rig, statement: str) -> Iterator["psycopg2.extensions.cursor"]:
    """Holds locks in another session."""
    rig.drain()
    with closing(psycopg2.connect(server.url(_name(rig)))) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        yield cursor


def _blocked(server: Server, rig: Rig) -> bool:
    return bool(
        server.execute(
            f"""
            SELECT 1 FROM pg_stat_activity
            WHERE datname = '{_name(rig)}' AND application_name = 'mobileye-data' AND wait_event_type = 'Lock'
            """
        )
    )


@contextmanager
def _full(server: Server, rig: Rig) -> Iterator[None]:
    """Moves the ledger to a small separate disk and fills that (53100)."""
    folder = server.folder / "small"
    folder.mkdir(exist_ok=True)
    owner = (server.folder / "data").stat().st_uid
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size=1m,mode=700,uid={owner}", "none", str(folder)], check=True
    )
    name = _name(rig)
    move = "ALTER TABLE mobileye_data.ingested_files SET TABLESPACE"
    rig.drain()
    try:
        server.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
        server.execute(f"{move} small", name)
        filling = folder / "filling"
        with suppress(OSError), open(filling, "wb", buffering=0) as file:
            while file.write(bytes(1024)):
                pass
        for _ in range(200):  # they fill the last page of the table
            rig.drop(1)
        yield
        filling.unlink()
        server.execute(f"{move} pg_default", name)
        server.execute("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _name(rig: Rig) -> str:
    return rig.url.rpartition("/")[2]


_WRITABLE = "?options=-c%20default_transaction_read_only%3Doff"

_CODES: dict[str, Failure] = {
    "53300": _by(f"ALTER ROLE {_ROLE} CONNECTION LIMIT 0", f"ALTER ROLE {_ROLE} CONNECTION LIMIT -1"),
    "25006": _by(
        "ALTER DATABASE {name} SET default_transaction_read_only = on",
        "ALTER DATABASE {name} RESET default_transaction_read_only",
    ),
    "57014": _cancelled,
    "40P01": _deadlocked,
    "53100": _full,
    "42P01": _by(
        "ALTER TABLE mobileye_data.ingested_files RENAME TO lost",
        "DROP TABLE IF EXISTS mobileye_data.ingested_files; "
        "ALTER TABLE mobileye_data.lost RENAME TO ingested_files",
        at_once=False,
    ),
    "42501": _by(
        f"REVOKE INSERT ON mobileye_data.ingested_files FROM {_ROLE}",
        f"GRANT INSERT ON mobileye_data.ingested_files TO {_ROLE}",
        at_once=False,
    ),
    "28P01": _by(f"ALTER ROLE {_ROLE} PASSWORD 'another'", f"ALTER ROLE {_ROLE} PASSWORD '{_PASSWORD}'"),
}

#: Faults that a person must fix: the daemon ends, with this exit code.
_FATAL = {"42P01", "42501", "28P01"}
_MISCONFIGURED = 2

#: Words that the log must contain for each code.
_WORDS = {
    "53300": "too many connections",
    "25006": "read-only",
    "57014": "canceling statement",
    "40P01": "",  # retried at once, without a log line
    "53100": "No space left",
    "42P01": "does not exist",
    "42501": "permission denied",
    "28P01": "authentication failed",
}
