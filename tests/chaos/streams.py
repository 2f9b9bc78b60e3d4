"""Consumers of one group whose broker and database may be harmed, and the oracle of what they loaded."""

import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from signal import SIGINT, SIGTERM
from subprocess import TimeoutExpired
from threading import Event

import psutil
from confluent_kafka import IsolationLevel

from tests.chaos.fleets import TRACEBACK
from tests.chaos.messages import MessageSender, Place
from tests.chaos.oracle import judge, leaks
from tests.chaos.producers import DETECTIONS, STATUSES, Journal
from tests.chaos.rig import Figure, Finding, Trial, prepare
from tests.consume.consuming import EVENTS, STATUS, Fleet
from tests.kafka import Broker
from tests.support import Daemon, query, until
from tests.topics import ends_of

#: A consumer that was killed is noticed after this time; the default is 10 s.
SESSION_SECONDS = 2.0

_SETTINGS = {
    "KAFKA_SESSION_TIMEOUT_MS": int(1000 * SESSION_SECONDS),
    "KAFKA_HEARTBEAT_INTERVAL_MS": 500,
    "KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS": 1000,
}

#: What docs/kafka.md states as the most memory of a consumer.
_MOST_MEMORY = 250.0

_TOPIC_OF = {DETECTIONS: EVENTS, STATUSES: STATUS}


class ConsumerFleet:
    """Some consumers of one group, and what is wrong with them."""

    def __init__(self, trial: Trial, url: str, broker: Broker, prefix: str = "", **settings: object) -> None:
        """Starts nothing; the topics are made by make(), or by others if a prefix is given."""
        self.broker = broker
        self.url = url
        self.topics = Fleet(trial.folder, url, broker, **{**_SETTINGS, **settings})
        self.topics.prefix = prefix or self.topics.prefix
        self.consumers: list[Daemon] = []
        self.complaints: list[str] = []
        self.memory = 0.0
        self._read: dict[Path, int] = {}  # how much of its log is of earlier runs
        self._rng = trial.rng
        self._secret = trial.server.password

    @property
    def topic_of(self) -> dict[str, str]:
        """The topic of each kind."""
        return {kind: self.topics.topic(name) for kind, name in _TOPIC_OF.items()}

    def sender(self, partitions: int) -> MessageSender:
        """Makes the topics, and returns what sends messages into them."""
        self.topics.make(partitions)
        return MessageSender(self.broker, self.topic_of, partitions, self._rng)

    def grow(self, sender: MessageSender, most: int) -> None:
        """Adds a partition to each topic, unless there are many."""
        if sender.partitions < most:
            for topic in self.topic_of.values():
                self.broker.add_partitions(topic, sender.partitions + 1)
            sender.partitions += 1

    def add(self) -> Daemon:
        """Starts one more consumer."""
        consumer = self.topics.consumer(wait=False)
        self.consumers.append(consumer)
        return consumer

    def start(self, consumer: Daemon) -> None:
        """Starts a consumer again."""
        self._read[consumer.folder] = len(consumer.log())
        consumer.start("consume", wait=False)

    def revive(self) -> None:
        """Starts the consumers that have ended; nobody but the runner may have ended one."""
        for consumer in self.consumers:
            self.check(consumer)
            if consumer.process is None:
                self.start(consumer)

    def check(self, consumer: Daemon) -> None:
        """Complains of a consumer that has ended by itself."""
        process = consumer.process
        if process is not None and process.poll() is not None:
            self.complaints.append(f"it ended with {process.returncode}: {consumer.log()[-600:]}")
            consumer.process = None

    def kill(self, consumer: Daemon) -> None:
        self.check(consumer)
        if consumer.process is not None:
            consumer.process.kill()
            consumer.process.wait(20)
            consumer.process = None

    def stop(self, consumer: Daemon) -> float:
        """Asks a consumer to end; returns the seconds that it takes."""
        self.check(consumer)
        started = time.monotonic()
        if consumer.process is not None:
            process = consumer.process
            try:
                code = consumer.stop(self._rng.choice((SIGINT, SIGTERM)))
            except TimeoutExpired:
                self.complaints.append(f"it does not end: {stacks(process.pid)} {consumer.log()[-1500:]}")
                process.kill()
                process.wait(20)
                return time.monotonic() - started
            # Asked before it could listen, it ends as any program does.
            if code and " consuming " in consumer.log()[self._read.get(consumer.folder, 0) :]:
                self.complaints.append(f"asked to end, it ended with {code}: {consumer.log()[-600:]}")
        return time.monotonic() - started

    def measure(self, stop: Event) -> None:
        """Notes the memory of the largest consumer."""
        while not stop.wait(0.25):
            for consumer in list(self.consumers):
                with suppress(psutil.Error, AssertionError):
                    self.memory = max(self.memory, psutil.Process(consumer.pid).memory_info().rss / 1e6)

    def ends(self, level: IsolationLevel = IsolationLevel.READ_COMMITTED) -> dict[tuple[str, int], int]:
        """Returns how far the logs reach."""
        return {
            (name, partition): end
            for name in (EVENTS, STATUS)
            for partition, end in ends_of(self.broker, self.topics.topic(name), level).items()
        }

    def seconds_to_load(self, seconds: float) -> float:
        """Returns the time until all that is there now is loaded; at most the seconds."""
        started, wanted = time.monotonic(), self.ends()

        def is_loaded() -> bool:
            time.sleep(0.05)
            found = self.topics.positions()
            return all(found.get(place, 0) >= end for place, end in wanted.items())

        with suppress(AssertionError):  # the figure shows it
            until(is_loaded, seconds)
        return time.monotonic() - started

    def drain(self, seconds: float = 300) -> None:
        """Waits until nothing is left to load; what an open transaction hides is waited for, too."""
        self.revive()
        with suppress(AssertionError):
            until(lambda: self.ends() == self.ends(IsolationLevel.READ_UNCOMMITTED), 60)
        self.seconds_to_load(seconds)

    def finding(self, journal: Journal, sender: MessageSender | None, *figures: Figure) -> Finding:
        """Returns the verdict of the oracle on messages that are all loaded."""
        for consumer in self.consumers:
            self.stop(consumer)
        counts = judge(self.url, journal, set(), set())
        self._judge_ledger(sender, counts)
        if (positions := self.topics.positions()) != (ends := self.ends(IsolationLevel.READ_UNCOMMITTED)):
            self.complaints.append(f"the positions are {positions}, the logs end at {ends}")
        verified = self.consumers[0].command("verify").stdout
        if verified != "ledger, tables and folders add up\n":
            self.complaints.append(f"verify says {verified[:500]}")
        self._look_at_logs(counts)
        memory = Figure("memory", self.memory, _MOST_MEMORY * 1.048576, "MB")
        return Finding(counts, [*figures, memory], self.complaints)

    def _judge_ledger(self, sender: MessageSender | None, counts: Counter[str]) -> None:
        """Compares what the ledger counts beside rows: a message that was loaded twice shows here."""
        ((duplicate, deliveries),) = query(
            self.url,
            """
            SELECT coalesce(sum(rows_duplicate), 0)::integer, coalesce(sum(deliveries - 1), 0)::integer
            FROM mobileye_data.ingested_files
            """,
        )
        due = (sender.repeated_rows, sender.repeated_documents) if sender else (0, 0)
        if (duplicate, deliveries) != due:
            found = f"{duplicate} duplicates and {deliveries} repeated documents"
            self.complaints.append(f"{found}, sent were {due[0]} and {due[1]}")
        counts["doubled"] += max(0, duplicate - due[0]) + max(0, deliveries - due[1])
        rejected, wanted = Counter(self._rejected()), Counter(sender.rejected if sender else ())
        counts["lost"] += (wanted - rejected).total()
        counts["doubled"] += (rejected - wanted).total()
        if sender is not None:
            self.complaints += sender.undelivered[:3]

    def _rejected(self) -> Collection[Place]:
        """Returns the messages of the rejected records."""
        return query(
            self.url,
            """
            SELECT split_part(name, '/', 1), partition, message_offset::integer
            FROM mobileye_data.rejected_records JOIN mobileye_data.ingested_files USING (file_id)
            """,
        )

    def _look_at_logs(self, counts: Counter[str]) -> None:
        logs = [consumer.log() for consumer in self.consumers]
        leaking = leaks([line for log in logs for line in log.splitlines()], [self._secret])
        counts["leaks"] = len(leaking)
        self.complaints += [f"the log leaks: {line[:300]}" for line in leaking[:3]]
        self.complaints += [trace[:1500] for log in logs for trace in log.split(TRACEBACK)[1:]]


def stacks(pid: int) -> str:
    """Returns where each thread of a program stands in the system."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            found.append(f"{(task / 'comm').read_text().strip()}: {(task / 'wchan').read_text()}")
    return ", ".join(found)


@contextmanager
def consumer_fleet(
    trial: Trial, broker: Broker, prefix: str = "", **settings: object
) -> Iterator[ConsumerFleet]:
    """Yields a group without members; kills all of them at the end."""
    with ExitStack() as stack:
        database = stack.enter_context(trial.server.database())
        prepare(database, is_ours=True)
        fleet = ConsumerFleet(trial, database.url, broker, prefix, **settings)
        stack.callback(fleet.topics.stop)
        yield fleet
