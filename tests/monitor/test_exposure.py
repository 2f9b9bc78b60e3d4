"""Metrics and health of a real daemon: true at every scrape, and no client can hold it up."""

import re
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from db.connection import Database
from tests.monitor.scraping import OPENMETRICS, Samples, address_of, get, scrape
from tests.support import (
    Daemon,
    Server,
    detections,
    event,
    free_port,
    report,
    running_server,
    statuses,
    stopping,
    until,
)

OUTCOMES = ("inserted", "duplicate", "rejected")
KINDS = ("objects_detection", "vehicles_status", "unknown")


@pytest.fixture
def daemon(tmp_path: Path, database: Database) -> Iterator[Daemon]:
    """A daemon with metrics that is not started yet."""
    with stopping(Daemon(tmp_path, database.url, METRICS_ADDRESS="127.0.0.1:0")) as daemon:
        yield daemon


def drop_all_sorts(daemon: Daemon, turn: int) -> None:
    """Files that load, that repeat others, with rejects, with conflicts, and that fail."""
    vehicle = f"v{turn}"
    good = statuses(*(report(second, vehicle=vehicle) for second in range(20)))
    daemon.drop(f"vehicles_status_{turn}.json", good)
    daemon.drop(f"vehicles_status_{turn}_again.json", good)
    daemon.drop(f"vehicles_status_{turn}_known.json", good.replace(b"}", b"} "))
    daemon.drop(
        f"vehicles_status_{turn}_rejects.json",
        statuses(report(1, "parking", vehicle=vehicle), report(30, vehicle=vehicle), {"vehicle_id": vehicle}),
    )
    daemon.drop(f"objects_detection_{turn}.json", detections(*(event(s, vehicle=vehicle) for s in range(30))))
    daemon.drop(f"objects_detection_{turn}_bad.json", f"[{turn}]".encode())


def ledger(daemon: Daemon) -> dict[tuple[str, str], float]:
    """What the metrics should be, by name and kind."""
    rows = daemon.rows(
        "SELECT kind, count(*), sum(deliveries - 1), sum(size), sum(rows_read), sum(rows_inserted), "
        "sum(rows_duplicate), sum(rows_rejected) "
        "FROM mobileye_data.ingested_files WHERE state = 'loaded' GROUP BY 1"
    )
    names = ("loaded", "again", "bytes", "read", *OUTCOMES)
    return {
        (kind, name): float(value)
        for kind, *values in rows
        for name, value in zip(names, values, strict=True)
    }


def check_sums(samples: Samples) -> None:
    for kind in KINDS:
        read = samples.value("mobileye_records_read_total", kind=kind)
        assert read == samples.sum("mobileye_records_total", kind=kind)
        loaded = samples.value("mobileye_files_total", kind=kind, state="loaded")
        assert samples.value("mobileye_arrival_to_visible_seconds_count", kind=kind) == loaded


def assert_nothing_fell(before: Samples, now: Samples) -> None:
    old, new = before.counters(), now.counters()
    assert old.keys() == new.keys() and all(new[key] >= old[key] for key in new)


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_counters_add_up_at_every_scrape_and_agree_with_the_ledger(daemon: Daemon, accept: str) -> None:
    daemon.start()
    address = address_of(daemon)
    before = scrape(address, accept)
    turns = iter(range(30))

    def is_done() -> bool:
        """Drops more files, if there are any, and scrapes twice."""
        nonlocal before
        if (turn := next(turns, None)) is not None:
            drop_all_sorts(daemon, turn)
        for _ in range(2):
            now = scrape(address, accept)
            check_sums(now)
            assert_nothing_fell(before, now)
            before = now
        return before.sum("mobileye_files_total") == 180

    until(is_done, 100)
    last = before
    wanted = ledger(daemon)
    for kind in KINDS[:2]:
        assert last.value("mobileye_files_total", kind=kind, state="loaded") == wanted[kind, "loaded"]
        assert last.value("mobileye_files_total", kind=kind, state="duplicate") == wanted[kind, "again"]
        assert last.value("mobileye_loaded_bytes_total", kind=kind) == wanted[kind, "bytes"]
        assert last.value("mobileye_records_read_total", kind=kind) == wanted[kind, "read"]
        for outcome in OUTCOMES:
            found = last.value("mobileye_records_total", kind=kind, outcome=outcome)
            assert found == wanted[kind, outcome]
    failed = daemon.rows("SELECT count(*) FROM mobileye_data.ingested_files WHERE state = 'failed'")
    assert failed == [(30,)] and last.sum("mobileye_files_total", state="failed") == 30
    assert all(wanted["vehicles_status", outcome] > 0 for outcome in OUTCOMES)


def test_what_waits_is_shown_with_its_age(daemon: Daemon) -> None:
    daemon.start()
    address = address_of(daemon)
    until(lambda: get(f"{address}/readyz")[0] == 200)
    name, half = "vehicles_status_1.json", statuses(report())[:-5]
    with open(daemon.incoming / name, "wb") as file:  # the daemon waits while it is open for writing
        file.write(half)
        file.flush()
        samples = until(lambda: (s := scrape(address)).value("mobileye_waiting_files") == 1 and s)
        assert samples.value("mobileye_waiting_bytes") == len(half)
        until(lambda: scrape(address).value("mobileye_oldest_waiting_seconds") > 1)
        file.write(statuses(report())[-5:])
    daemon.until_empty()
    until(lambda: scrape(address).value("mobileye_waiting_files") == 0)
    assert scrape(address).value("mobileye_oldest_waiting_seconds") == 0


def test_a_worker_that_dies_is_counted(daemon: Daemon) -> None:
    daemon.start()
    address = address_of(daemon)
    until(lambda: scrape(address).value("mobileye_workers_alive") == 2)
    with closing(psycopg2.connect(daemon.url)) as locker:
        locker.cursor().execute("LOCK TABLE mobileye_data.vehicle_status_history")
        daemon.drop("vehicles_status_1.json", statuses(report()))

        def is_counted() -> bool:
            if daemon.rows("SELECT 1 FROM pg_locks WHERE NOT granted"):
                for worker in daemon.workers():
                    worker.send_signal(signal.SIGKILL)
            return scrape(address).value("mobileye_worker_deaths_total") >= 1

        until(is_counted)
    daemon.until_empty()
    until(lambda: scrape(address).value("mobileye_workers_alive") == 2)
    assert scrape(address).value("mobileye_workers_wanted") == 2


# Health -------------------------------------------------------------------------------------------


def test_a_daemon_without_its_database_is_alive_and_not_ready(tmp_path: Path) -> None:
    with running_server("fsync=off") as server, server.database() as database:
        daemon = Daemon(tmp_path, database.url, METRICS_ADDRESS="127.0.0.1:0").start()
        address = address_of(daemon)
        until(lambda: get(f"{address}/readyz")[0] == 200)
        server.stop()
        until(lambda: get(f"{address}/readyz")[0] == 503)  # though it is idle
        assert "database" in get(f"{address}/readyz")[1]
        daemon.drop("vehicles_status_1.json", statuses(report()))
        until(lambda: scrape(address).value("mobileye_outage", resource="database") == 1)
        assert get(f"{address}/readyz")[1].startswith("an outage of the database: ")
        assert get(f"{address}/healthz")[:2] == (200, "ok\n")
        server.start("fsync=off")
        daemon.until_empty()
        until(lambda: get(f"{address}/readyz")[0] == 200)
        samples = scrape(address)
        assert samples.value("mobileye_outages_total", resource="database") == 1
        assert samples.value("mobileye_outage_seconds_total", resource="database") > 0
        daemon.stop()


def test_a_daemon_that_waits_for_its_database_at_the_start_can_be_asked(
    tmp_path: Path, server: Server
) -> None:
    nowhere = f"postgresql://tester@127.0.0.1:{free_port()}/postgres"
    daemon = Daemon(tmp_path, nowhere, METRICS_ADDRESS="127.0.0.1:0").start(wait=False)
    address = address_of(daemon)
    until(lambda: get(f"{address}/readyz")[1].startswith("an outage of the database: "))
    assert get(f"{address}/healthz")[0] == 200
    daemon.stop()


def test_a_daemon_without_its_folder_is_not_ready(daemon: Daemon) -> None:
    daemon.start()
    address = address_of(daemon)
    until(lambda: get(f"{address}/readyz")[0] == 200)
    daemon.incoming.rename(daemon.folder / "elsewhere")
    until(lambda: get(f"{address}/readyz")[0] == 503)
    assert get(f"{address}/readyz")[1] == "the watch folder can't be listed: No such file or directory\n"
    assert scrape(address).value("mobileye_watch_folder_readable") == 0
    (daemon.folder / "elsewhere").rename(daemon.incoming)
    until(lambda: get(f"{address}/readyz")[0] == 200)


def test_a_daemon_with_the_embedded_database_is_ready(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, None, METRICS_ADDRESS="127.0.0.1:0").start(wait=False)
    address = address_of(daemon)  # served before there is a database
    until(lambda: get(f"{address}/readyz")[:2] == (200, "ok\n"), 60)
    daemon.stop()


# The server ---------------------------------------------------------------------------------------


def test_all_pages_are_for_reading_only(daemon: Daemon) -> None:
    daemon.start()
    address = address_of(daemon)
    until(lambda: get(f"{address}/readyz")[0] == 200)
    for page in ("/metrics", "/healthz", "/readyz"):
        code, text, header = get(address + page, "HEAD")
        assert (code, text) == (200, "") and int(header["Content-Length"]) > 0
        assert get(address + page, "POST")[0] == 501
    assert get(f"{address}/metrics?name[]=a")[0] == 200
    code, text, _ = get(f"{address}/")
    assert (code, text) == (404, "here are /metrics, /healthz, /readyz\n")


def test_a_port_in_use_is_a_sentence_and_code_2(tmp_path: Path, database: Database) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        place = f"127.0.0.1:{other.getsockname()[1]}"
        done = Daemon(tmp_path, database.url, METRICS_ADDRESS=place).command()
    assert done.returncode == 2
    wanted = f"error: METRICS_ADDRESS is {place}: nobody can listen there: Address already in use\n"
    assert done.stderr == wanted


def test_a_host_that_is_not_here_is_a_sentence_and_code_2(tmp_path: Path, database: Database) -> None:
    done = Daemon(tmp_path, database.url, METRICS_ADDRESS="192.0.2.1:9464").command()
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: METRICS_ADDRESS is 192\.0\.2\.1:9464: nobody can listen there: .+\n", done.stderr
    )


def test_it_listens_at_an_address_of_ipv6(tmp_path: Path, database: Database) -> None:
    daemon = Daemon(tmp_path, database.url, METRICS_ADDRESS="[::1]:0").start()
    address = address_of(daemon)
    assert address.startswith("http://[::1]:")
    assert get(f"{address}/healthz")[0] == 200
    daemon.stop()


def test_once_serves_nothing_and_needs_no_port(tmp_path: Path, database: Database) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        place = f"127.0.0.1:{other.getsockname()[1]}"
        assert Daemon(tmp_path, database.url, METRICS_ADDRESS=place).command("--once").returncode == 0


def test_slow_clients_hold_up_neither_loading_nor_the_end(daemon: Daemon) -> None:
    daemon.start()
    address = address_of(daemon)
    host, port = address.removeprefix("http://").split(":")
    clients = [socket.create_connection((host, int(port))) for _ in range(40)]
    try:
        for client in clients[:16]:
            client.sendall(b"GET /metrics HT")  # and never more
        daemon.drop("vehicles_status_1.json", statuses(report()))
        daemon.until_empty()
        until(lambda: reads(address), 30, "the silent clients are cut off")
        for client in clients:
            client.close()
        clients = [socket.create_connection((host, int(port))) for _ in range(8)]
        assert daemon.stop() == 0
    finally:
        for client in clients:
            client.close()
    assert "Traceback" not in daemon.log() and "metrics failed" not in daemon.log()


def reads(address: str) -> bool:
    try:
        return get(f"{address}/healthz")[0] == 200
    except OSError:
        return False


def test_a_client_that_goes_early_is_no_fault(daemon: Daemon) -> None:
    daemon.start()
    address = address_of(daemon)
    host, port = address.removeprefix("http://").split(":")
    for _ in range(20):
        with socket.create_connection((host, int(port))) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, no end
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert get(f"{address}/metrics")[0] == 200
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log() and "metrics failed" not in daemon.log()


# What a daemon without metrics has of it ----------------------------------------------------------


def test_a_daemon_without_metrics_imports_nothing_of_them(tmp_path: Path, database: Database) -> None:
    daemon = Daemon(tmp_path, database.url, PYTHONPROFILEIMPORTTIME=1).start()
    daemon.drop("vehicles_status_1.json", statuses(report()))
    daemon.until_empty()
    assert daemon.stop() == 0
    imported = set(re.findall(r"^import time: .*\| +(\S+)$", daemon.log(), re.MULTILINE))
    assert "structlog" in imported
    unwanted = {"prometheus_client", "http.server", "socketserver", "tomllib", "monitor.exposure"}
    assert not imported & unwanted
