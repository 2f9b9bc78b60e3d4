"""Harms the connection to the database, message by message, or makes the other end silent."""

import os
import signal
import time
from contextlib import suppress
from itertools import cycle, product

from service.heartbeat import DATABASE_SECONDS
from tests.chaos.link import Link, plugged
from tests.chaos.proxy import TO_CLIENT, TO_SERVER, Fault, Harm, Proxy
from tests.chaos.rig import Figure, Finding, Rig, Trial, p99
from tests.support import query, until

#: Rows of the files: a few go by INSERT, many by COPY.
_SIZES = (12, 12, 1500)

#: At least this many messages come back while a connection is made and a small file is loaded.
_ANSWERS = 45

#: The time after which db/connection.py gives up a dead link, and two seconds to notice that.
_DEADLINE = 12.0

#: Rows of a file that takes long enough to be interrupted; and the time limit of a start and its load.
_LONG, _START = 200_000, 5.0

#: The time after which the heartbeat gives up a silent server, and the time of a restart. Silence while
#: a connection is made is noticed earlier, within connect_timeout.
_SILENT_DEADLINE = DATABASE_SECONDS + 10


def messages(trial: Trial) -> Finding:
    """Cuts, delays, slices and swallows messages at every boundary, COMMIT and its reply included."""
    with Proxy(trial.server.port).running() as proxy, trial.rig(proxy.port, WORKERS=1) as rig:
        with rig.watched():
            faults = _faults(rig, proxy)
            trial.rng.shuffle(faults)
            trial.take(len(faults))
            for _, fault in zip(trial.rounds(), cycle(faults), strict=False):
                _load_through(rig, proxy, fault)
                trial.done -= not proxy.has_struck  # this round had fewer messages
            proxy.arm(None)
            rig.drain()
        return rig.finding()


def silence(trial: Trial) -> Finding:
    """Freezes the server, or a proxy in front of it: it stops answering while its host still acknowledges."""
    trial.volume = max(trial.volume, 2)  # one of each
    frozen: list[float] = []
    silent: list[float] = []
    with Proxy(trial.server.port).running() as proxy, trial.rig(proxy.port, WORKERS=1) as rig:
        with rig.watched():
            for number in trial.rounds():
                if number % 2:
                    frozen.append(_frozen(rig))
                else:
                    silent.append(_silent(rig, proxy, trial.rng.randint(1, _ANSWERS)))
            rig.drain()
        return rig.finding(
            Figure("frozen backend noticed p99", p99(frozen), _SILENT_DEADLINE),
            Figure("silent proxy noticed p99", p99(silent), _SILENT_DEADLINE),
        )


def dead_links(trial: Trial) -> Finding:
    """Cuts the link in a transaction, noticed or not; or kills the daemon too, whose backend lives on."""
    trial.volume = max(trial.volume, 3)  # one of each
    noticed: list[float] = []
    freed: list[float] = []
    with plugged(trial.server) as link, trial.rig(WORKERS=1) as rig:
        _move(rig, link)
        with rig.watched():
            for number in trial.rounds():
                rig.drop(_LONG)
                until(lambda: _is_writing(rig), 20, "a transaction has written")
                with link.pulled() if number % 3 == 1 else link.swallowing():
                    if number % 3 == 2:
                        freed.append(_loaded_from_here(rig))
                        _move(rig, link)
                    else:
                        noticed.append(_noticed(rig))
                rig.revive()
                rig.drain()
        return rig.finding(
            Figure("dead link noticed p99", p99(noticed), _DEADLINE),
            Figure("zombie's locks free p99", p99(freed), _DEADLINE + _START),
        )


def _move(rig: Rig, link: Link) -> None:
    """Moves the daemon to the far end of the link, from its next start on."""
    rig.daemon.prefix = link.prefix
    rig.daemon.url = rig.url.replace("127.0.0.1", link.server)


def _is_writing(rig: Rig) -> bool:
    statement = """
        SELECT 1 FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'mobileye-data' AND backend_xid IS NOT NULL
    """
    return bool(query(rig.url, statement))


def _noticed(rig: Rig) -> float:
    started, before = time.monotonic(), _outages(rig)
    rig.drop(12)  # in case the large one is done already
    with suppress(AssertionError):  # the figure shows it
        until(lambda: _outages(rig) > before, 2 * _DEADLINE)
    return time.monotonic() - started


def _outages(rig: Rig) -> int:
    return rig.daemon.log().count(" waiting for the database ")


def _loaded_from_here(rig: Rig) -> float:
    """Returns how long a file waits for a backend that keeps the locks of its first load."""
    assert _is_writing(rig), "the transaction has ended already"
    rig.end()
    rig.daemon.prefix, rig.daemon.url = (), rig.url
    started = time.monotonic()
    rig.daemon.start(wait=False)
    with suppress(AssertionError):  # the figure shows it
        rig.daemon.until_empty(120)
    rig.end()
    return time.monotonic() - started


def _faults(rig: Rig, proxy: Proxy) -> list[Fault]:
    """Returns each fault of each message that a run without faults sends, once the partitions exist."""
    for _ in range(2):
        _load_through(rig, proxy, None)
    harms = [harm for harm in Harm if harm is not Harm.SILENCE]
    counts = dict(proxy.counts)
    return [
        Fault(harm, direction, n)
        for harm, direction in product(harms, (TO_SERVER, TO_CLIENT))
        for n in range(1, counts[direction] + 1)
    ]


def _load_through(rig: Rig, proxy: Proxy, fault: Fault | None) -> None:
    """Loads some files through a new connection."""
    proxy.cut_all()
    proxy.arm(fault)
    for rows in _SIZES:
        rig.drop(rows)
    rig.daemon.until_empty(30)


def _silent(rig: Rig, proxy: Proxy, n: int) -> float:
    """Returns how long a silent link goes unnoticed."""
    proxy.cut_all()
    proxy.arm(Fault(Harm.SILENCE, TO_CLIENT, n))
    rig.drop(12)
    until(lambda: proxy.has_struck, 20, "the link falls silent")
    started = time.monotonic()
    _wait(rig)
    proxy.cut_all()
    return time.monotonic() - started


def _frozen(rig: Rig) -> float:
    """Stops the server processes for a while; returns how long that goes unnoticed."""
    rig.drop(12)
    rig.daemon.until_empty(30)
    backends = _backends(rig)
    for backend in backends:
        os.kill(backend, signal.SIGSTOP)
    started = time.monotonic()
    rig.drop(12)
    _wait(rig)
    seconds = time.monotonic() - started
    for backend in backends:
        with suppress(ProcessLookupError):
            os.kill(backend, signal.SIGCONT)
    return seconds


def _wait(rig: Rig) -> None:
    with suppress(AssertionError):  # the figure shows it
        rig.daemon.until_empty(_SILENT_DEADLINE + 3)


def _backends(rig: Rig) -> list[int]:
    name = rig.url.rpartition("/")[2]
    statement = """
        SELECT pid FROM pg_stat_activity
        WHERE datname = %s AND application_name = 'mobileye-data'
    """
    return [pid for (pid,) in query(rig.url, statement, (name,))]
