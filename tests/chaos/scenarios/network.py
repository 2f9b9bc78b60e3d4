"""Harms the connection to the database, message by message, or has the other end fall silent."""

import os
import signal
import time
from contextlib import suppress
from itertools import cycle, product

from processing.pulse import DATABASE_SECONDS
from tests.chaos.link import Link, plugged
from tests.chaos.proxy import TO_CLIENT, TO_SERVER, Fault, Harm, Proxy
from tests.chaos.rig import Figure, Finding, Rig, Trial, p99
from tests.support import query, until

#: A few rows by INSERT, many by COPY.
_SIZES = (12, 12, 1500)

#: So many messages at least come back while a connection is made and a small file loaded.
_ANSWERS = 45

#: What db/connection.py gives a link that is dead, and two seconds to notice.
_DEADLINE = 12.0

#: Rows of a file that takes long enough to be caught at it; and what a start and its load may take.
_LONG, _START = 200_000, 5.0

#: What processing/pulse.py gives a server that is silent, and as long again as a restart takes. Silence
#: while a connection is made is noticed within connect_timeout.
_SILENT_DEADLINE = DATABASE_SECONDS + 10


def messages(trial: Trial) -> Finding:
    """Cuts, delays, slices and swallows at every message boundary, COMMIT and its reply included."""
    with Proxy(trial.server.port).running() as proxy, trial.rig(proxy.port, WORKERS=1) as rig:
        with rig.watched():
            faults = _faults(rig, proxy)
            trial.rng.shuffle(faults)
            trial.take(len(faults))
            for _, fault in zip(trial.rounds(), cycle(faults), strict=False):
                _load_through(rig, proxy, fault)
                trial.done -= not proxy.has_struck  # its round held fewer messages
            proxy.arm(None)
            rig.drain()
        return rig.finding()


def silence(trial: Trial) -> Finding:
    """The server stops answering, though its host acknowledges: frozen, or behind a proxy that hangs."""
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
    """The link dies in a transaction, with a word or without; or the daemon too, and its backend lives on."""
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
    """To the far end of the cable, from the next start on."""
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
    rig.drop(12)  # if the other one was done already
    with suppress(AssertionError):  # the figure tells
        until(lambda: _outages(rig) > before, 2 * _DEADLINE)
    return time.monotonic() - started


def _outages(rig: Rig) -> int:
    return rig.daemon.log().count(" waiting for the database ")


def _loaded_from_here(rig: Rig) -> float:
    """How long a file waits whose first load has left a backend behind, with its locks, that hears no end."""
    assert _is_writing(rig), "the transaction has ended already"
    rig.end()
    rig.daemon.prefix, rig.daemon.url = (), rig.url
    started = time.monotonic()
    rig.daemon.start(wait=False)
    with suppress(AssertionError):  # the figure tells
        rig.daemon.until_empty(120)
    rig.end()
    return time.monotonic() - started


def _faults(rig: Rig, proxy: Proxy) -> list[Fault]:
    """All that can happen to what a run without faults sends, once the partitions are there."""
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
    """Some files, by a new connection."""
    proxy.cut_all()
    proxy.arm(fault)
    for rows in _SIZES:
        rig.drop(rows)
    rig.daemon.until_empty(30)


def _silent(rig: Rig, proxy: Proxy, n: int) -> float:
    """How long a link goes unnoticed on which nothing passes any more."""
    proxy.cut_all()
    proxy.arm(Fault(Harm.SILENCE, TO_CLIENT, n))
    rig.drop(12)
    until(lambda: proxy.has_struck, 20, "the link falls silent")
    started = time.monotonic()
    _wait(rig)
    proxy.cut_all()
    return time.monotonic() - started


def _frozen(rig: Rig) -> float:
    """The same for server processes that are stopped, with a transaction open; then they go on."""
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
    with suppress(AssertionError):  # the figure tells
        rig.daemon.until_empty(_SILENT_DEADLINE + 3)


def _backends(rig: Rig) -> list[int]:
    name = rig.url.rpartition("/")[2]
    statement = """
        SELECT pid FROM pg_stat_activity
        WHERE datname = %s AND application_name = 'mobileye-data'
    """
    return [pid for (pid,) in query(rig.url, statement, (name,))]
