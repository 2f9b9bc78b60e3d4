"""Harms consumers and publishers of topics, the broker, the link to it, and the database."""

import random
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial

from tests.chaos.background import beside
from tests.chaos.oracle import FAULTS
from tests.chaos.publishers import TRANSACTION_SECONDS, PublisherFleet
from tests.chaos.rig import Figure, Finding, Trial, p99
from tests.chaos.streams import SESSION_SECONDS, ConsumerFleet, consumer_fleet
from tests.kafka import Broker, running_broker, unique
from tests.kafka_proxy import END_TRANSACTION, PRODUCE, KafkaProxy, disturbed_broker
from tests.support import frozen

#: Partitions of each topic at the beginning, and after some were added.
_PARTITIONS, _MOST_PARTITIONS = 6, 12

_CONSUMERS = 4

#: Others take over what a killed or frozen consumer had: after its session, and after the transaction that it
#: may hold open (10 s), and the time to load what is there.
_TAKEN_OVER_WITHIN = SESSION_SECONDS + 10 + 18

#: A consumer that comes or goes must not keep the others from loading for longer.
_STANDSTILL_WITHIN = 30.0

_STOPPED_WITHIN = 5.0

#: How long something is away, at most.
_AWAY_SECONDS = 6.0

#: A harm of a drawn kind, and its weight.
Harm = tuple[Callable[[], None], float]


def consumers(trial: Trial) -> Finding:
    """Harms four consumers, their broker and their database while messages of every sort come."""
    with running_broker() as broker, consumer_fleet(trial, broker) as fleet:
        group = _Group(trial, fleet)
        sender = fleet.sender(_PARTITIONS)
        harms: Sequence[Harm] = (
            (group.kill, 4),
            (group.freeze, 3),
            (group.stop, 3),
            (group.harm_database, 1),
            (partial(_restart, broker, trial.rng), 1),
            (lambda: fleet.grow(sender, _MOST_PARTITIONS), 0.3),
        )
        for _ in range(_CONSUMERS):
            fleet.add()
        with beside(sender.send_on), beside(fleet.measure):
            _harm(trial, harms, 1, fleet.revive)
        sender.flush()
        fleet.drain()
        messages = Figure("messages", sender.messages, float("inf"), "")
        return fleet.finding(sender.journal, sender, messages, *group.figures())


def storm(trial: Trial) -> Finding:
    """Lets consumers join and leave a group all the time, with either protocol of rebalancing."""
    volume, finding = trial.volume, Finding()
    for part, strategy in enumerate(("cooperative-sticky", "range"), 1):
        trial.volume = volume * part // 2
        found = _storm(trial, strategy)
        finding.counts += found.counts
        finding.complaints += found.complaints
        finding.figures += found.figures
    trial.volume = volume
    return finding


def publishers(trial: Trial) -> Finding:
    """Harms a publisher, its broker and the link between them; others take its place with its id."""
    with disturbed_broker() as (broker, proxy):
        fleet = PublisherFleet(trial, broker, unique("chaos"))
        try:
            harms = _harms_of_publisher(fleet, proxy, trial.rng)
            fleet.start()
            with beside(fleet.drop_on):
                _harm(trial, harms, 2, fleet.revive)
            fleet.drain()
            files = Figure("files", len(fleet.contents), float("inf"), "")
            return Finding(fleet.judge(), [files], fleet.complaints)
        finally:
            fleet.close()


def chain(trial: Trial) -> Finding:
    """Harms all that is between a folder and the tables: a publisher, a broker, two consumers, a database."""
    with disturbed_broker() as (broker, proxy):
        publisher = PublisherFleet(trial, broker, unique("chaos"), has_flaws=False)
        try:
            with consumer_fleet(trial, broker, publisher.prefix) as fleet:
                return _harm_chain(trial, publisher, fleet, proxy)
        finally:
            publisher.close()


def _harm_chain(trial: Trial, publisher: PublisherFleet, fleet: ConsumerFleet, proxy: KafkaProxy) -> Finding:
    group = _Group(trial, fleet)
    harms = (
        *_harms_of_publisher(publisher, proxy, trial.rng),
        (group.kill, 4),
        (group.freeze, 1),
        (group.harm_database, 1),
    )
    publisher.start()
    for _ in range(2):
        fleet.add()
    with beside(publisher.drop_on), beside(fleet.measure):
        _harm(trial, harms, 2, publisher.revive, fleet.revive)
    publisher.drain()
    fleet.drain()
    published = publisher.judge(trial.server.password)
    found = fleet.finding(publisher.journal, None, *group.figures())
    for fault in FAULTS:
        found.counts[fault] += published[fault]
    found.complaints += publisher.complaints
    return found


class _Group:
    """The harms of consumers, and how long others took."""

    def __init__(self, trial: Trial, fleet: ConsumerFleet) -> None:
        self._fleet = fleet
        self._rng = trial.rng
        self._server = trial.server
        self._taken_over: list[float] = []
        self._stopped: list[float] = []

    def figures(self) -> Sequence[Figure]:
        return (
            Figure("taken over p99", p99(self._taken_over), _TAKEN_OVER_WITHIN),
            Figure("longest take-over", max(self._taken_over, default=0.0), float("inf")),
            Figure("stopped p99", p99(self._stopped), _STOPPED_WITHIN),
        )

    def kill(self) -> None:
        """Kills one consumer or two; sometimes all, and then nobody takes over before they are back."""
        consumers = self._fleet.consumers
        for victim in self._rng.sample(consumers, self._rng.choice((1, 1, 2, len(consumers)))):
            self._fleet.kill(victim)
        if self._rng.random() < 0.5:
            self._fleet.revive()
        self._measure()

    def freeze(self) -> None:
        """Freezes a consumer beyond its session, sometimes two, never all."""
        victims = self._rng.sample(self._fleet.consumers, self._rng.choice((1, 1, 2)))
        for victim in victims:
            self._fleet.check(victim)
        seconds = SESSION_SECONDS + self._rng.uniform(0.5, 12)
        started = time.monotonic()
        with frozen(*(victim.pid for victim in victims if victim.process is not None)):
            if len(victims) < len(self._fleet.consumers):
                self._measure(seconds)
            time.sleep(max(0.0, started + seconds - time.monotonic()))

    def stop(self) -> None:
        """Asks a consumer to end."""
        self._stopped.append(self._fleet.stop(self._rng.choice(self._fleet.consumers)))

    def harm_database(self) -> None:
        """Restarts the database, or takes it away for some seconds."""
        self._server.stop(self._rng.choice((signal.SIGINT, signal.SIGQUIT)))
        time.sleep(self._rng.choice((0.0, self._rng.uniform(0, _AWAY_SECONDS))))
        self._server.start("fsync=off")

    def _measure(self, seconds: float = _TAKEN_OVER_WITHIN + 5) -> None:
        if any(consumer.process is not None for consumer in self._fleet.consumers):
            self._taken_over.append(self._fleet.seconds_to_load(seconds))


def _storm(trial: Trial, strategy: str) -> Finding:
    settings = {"KAFKA_PARTITION_ASSIGNMENT_STRATEGY": strategy}
    standstills: list[float] = []
    with running_broker() as broker, consumer_fleet(trial, broker, **settings) as fleet:
        sender = fleet.sender(_PARTITIONS)
        fleet.add()
        with beside(sender.send_on), beside(fleet.measure):
            for _ in trial.rounds():
                _join_or_leave(fleet, trial.rng)
                time.sleep(trial.rng.uniform(0, 1))
                standstills.append(_standstill(fleet))
        sender.flush()
        fleet.drain()
        longest = Figure(f"longest standstill, {strategy}", max(standstills), _STANDSTILL_WITHIN)
        return fleet.finding(sender.journal, sender, longest)


def _join_or_leave(fleet: ConsumerFleet, rng: random.Random) -> None:
    """Lets one join, or one leave, as long as there is another."""
    running = [consumer for consumer in fleet.consumers if consumer.process is not None]
    ended = [consumer for consumer in fleet.consumers if consumer.process is None]
    if len(running) > 1 and rng.random() < 0.5:
        (fleet.kill if rng.random() < 0.3 else fleet.stop)(rng.choice(running))
    elif ended:
        fleet.start(rng.choice(ended))
    elif len(running) < _CONSUMERS:
        fleet.add()


def _standstill(fleet: ConsumerFleet) -> float:
    """Returns the time until something more is loaded."""
    started, before = time.monotonic(), sum(fleet.topics.positions().values())
    while time.monotonic() - started < _STANDSTILL_WITHIN + 5:
        if sum(fleet.topics.positions().values()) > before:
            break
        time.sleep(0.02)
    return time.monotonic() - started


def _restart(broker: Broker, rng: random.Random) -> None:
    """Kills the broker or asks it to end; it is away for some seconds."""
    broker.stop(rng.choice((signal.SIGKILL, signal.SIGTERM)))
    _come_back(broker, rng)


def _restart_for(fleet: PublisherFleet, rng: random.Random) -> None:
    """Kills the broker of a publisher, or asks it to end."""
    if rng.random() < 0.5:
        with fleet.undecided():
            fleet.broker.stop(signal.SIGKILL)
    else:
        fleet.broker.stop(signal.SIGTERM)
    _come_back(fleet.broker, rng)


def _come_back(broker: Broker, rng: random.Random) -> None:
    time.sleep(rng.choice((0.0, rng.uniform(0, _AWAY_SECONDS))))
    broker.start()


def _harms_of_publisher(fleet: PublisherFleet, proxy: KafkaProxy, rng: random.Random) -> Sequence[Harm]:
    longest = 2.0 * TRANSACTION_SECONDS
    return (
        (fleet.kill, 5),
        (fleet.kill_worker, 1),
        (fleet.stop, 1),
        (lambda: fleet.freeze(rng.uniform(TRANSACTION_SECONDS, longest)), 1),
        (lambda: fleet.replace(rng.uniform(0, longest)), 1),
        (partial(_restart_for, fleet, rng), 1),
        (partial(_cut, proxy, rng), 3),
    )


def _cut(proxy: KafkaProxy, rng: random.Random) -> None:
    """Cuts the link as messages are sent, or as a transaction ends, before the broker has it or after."""
    has_cut = proxy.cut_at(rng.choice((PRODUCE, END_TRANSACTION)), passes=rng.random() < 0.5)
    if has_cut.wait(20):
        time.sleep(rng.uniform(0, _AWAY_SECONDS))
    proxy.come_back()


def _harm(trial: Trial, harms: Sequence[Harm], longest: float, *revive: Callable[[], None]) -> None:
    """Does a harm in each round, after a pause, and starts again whatever has ended."""
    for _ in trial.rounds():
        time.sleep(trial.rng.uniform(0, longest))
        ((chosen, _),) = trial.rng.choices(harms, [weight for _, weight in harms])
        chosen()
        for start in revive:
            start()
