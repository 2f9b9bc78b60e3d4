"""A broker of the tests' own: Apache Kafka itself, fetched by Maven, as a single node in KRaft mode."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from confluent_kafka import KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from tests.support import free_port, until

VERSION = "4.4.0"

#: What Maven fetches the broker by.
_ARTIFACT = f"org.apache.kafka:kafka_2.13:{VERSION}"

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tests</groupId><artifactId>jars</artifactId><version>1</version>
  <dependencies>{}</dependencies>
</project>
"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"

#: Little memory, and a quick start rather than the best speed.
QUICK_JAVA = ("java", "-Xms64m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

#: What Kafka's own start script gives a broker.
USUAL_JAVA = (
    *("java", "-Xms1g", "-Xmx1g", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
    *(
        "-XX:InitiatingHeapOccupancyPercent=35",
        "-XX:+ExplicitGCInvokesConcurrent",
        "-Djava.awt.headless=true",
    ),
)


class Broker:
    """The broker: its address, and clients that see it from outside of what is tested."""

    def __init__(self, folder: Path, jars: Path, java: Sequence[str] = QUICK_JAVA) -> None:
        self.port, self._quorum_port = free_port(), free_port()
        self.servers = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.folder = folder
        self._java = [*java, "-cp", f"{jars}/*"]
        self._settings = folder / "server.properties"
        self._admin: AdminClient | None = None

    def settings(self) -> dict[str, object]:
        """What the broker is told."""
        controller = f"CONTROLLER://127.0.0.1:{self._quorum_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self._quorum_port}",
            "listeners": f"PLAINTEXT://{self.servers},{controller}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.folder / "logs",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "num.network.threads": 2,
            "num.io.threads": 2,
            "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,
            "log.retention.check.interval.ms": 1000,
            "message.max.bytes": 8 * 1024 * 1024,
            **dict.fromkeys(("offsets.topic.num.partitions", "transaction.state.log.num.partitions"), 1),
            **{f"{topic}.replication.factor": 1 for topic in ("offsets.topic", "transaction.state.log")},
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
        }

    def create(self) -> None:
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in self.settings().items()))
        made = [
            "kafka.tools.StorageTool",
            "format",
            "-t",
            "AAAAAAAAAAAAAAAAAAAAAA",
            "-c",
            str(self._settings),
        ]
        subprocess.run([*self._java, *made], check=True, capture_output=True)

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self._answers, 180, "the broker answers")

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None
            self._admin = None  # the next one need not wait until this one tries again

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def _answers(self) -> bool:
        """Without a logger on its class path, the broker says nothing."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def admin(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
        return self._admin

    def make_topic(self, name: str, partitions: int = 1, **settings: str) -> None:
        config = {key.replace("_", "."): value for key, value in settings.items()}
        made = self.admin.create_topics([NewTopic(name, partitions, 1, config=config)])
        made[name].result(30)

    def add_partitions(self, name: str, partitions: int) -> None:
        self.admin.create_partitions([NewPartitions(name, partitions)])[name].result(30)

    def delete_topic(self, name: str) -> None:
        self.admin.delete_topics([name])[name].result(30)
        until(lambda: name not in self.admin.list_topics(timeout=10).topics, what="the topic is gone")

    def delete_before(self, name: str, partition: int, offset: int) -> None:
        """Lets the log of a partition begin at that offset, as retention does."""
        place = TopicPartition(name, partition, offset)
        for deleted in self.admin.delete_records([place]).values():
            deleted.result(30)

    def producer(self, **settings: Any) -> Producer:
        chosen = {key.replace("_", "."): value for key, value in settings.items()}
        usual = {"bootstrap.servers": self.servers, "log_level": 0, "linger.ms": 5}
        return Producer({**usual, "message.max.bytes": 8 * 1024 * 1024, **chosen})

    def send(self, name: str, values: Iterable[bytes | None], partition: int = 0, **settings: Any) -> None:
        """Sends messages in order, and waits until the broker has them all."""
        producer = self.producer(**settings)
        for value in values:
            put(producer, name, value, partition)
        assert producer.flush(180) == 0


def put(
    producer: Producer,
    name: str,
    value: bytes | None,
    partition: int,
    key: bytes | None = None,
    on_delivery: Callable[[KafkaError | None, Message], None] | None = None,
) -> None:
    """Hands one message over, and waits if the producer's queue is full."""
    while True:
        try:
            producer.produce(name, value, key, partition=partition, on_delivery=on_delivery)
        except BufferError:
            producer.poll(0.1)
        else:
            producer.poll(0)
            return


AnyBroker = TypeVar("AnyBroker", bound=Broker)


@contextmanager
def running(make: Callable[[Path, Path], AnyBroker]) -> Iterator[AnyBroker]:
    """Starts what is made of a folder and the jars, and stops it at the end."""
    with tempfile.TemporaryDirectory() as folder:
        broker = make(Path(folder), find_jars())
        broker.create()
        try:
            broker.start()
            yield broker
        finally:
            broker.stop()


def running_broker(java: Sequence[str] = QUICK_JAVA) -> AbstractContextManager[Broker]:
    return running(partial(Broker, java=java))


def find_jars(name: str = f"kafka-{VERSION}", artifacts: Sequence[str] = (_ARTIFACT,)) -> Path:
    """Returns the folder with the broker, or with other artifacts, which Maven fetches once for each user."""
    missing = [command for command in ("java", "mvn") if shutil.which(command) is None]
    if missing:
        pytest.skip(f"there is no {missing[0]}: apt-get install default-jre-headless maven")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobileye-data-tests"
    jars = cache / name
    if not jars.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            wanted = [_DEPENDENCY.format(*artifact.split(":")) for artifact in artifacts]
            Path(work, "pom.xml").write_text(_POM.format("".join(wanted)))
            copy = ["dependency:copy-dependencies", "-DoutputDirectory=jars"]
            subprocess.run(["mvn", "-q", "-B", *copy], cwd=work, check=True, capture_output=True)
            if not jars.exists():  # another run may have been as quick
                Path(work, "jars").rename(jars)
    return jars


def unique(name: str) -> str:
    """Returns a name that no other test has, for a topic's prefix or a group."""
    return f"{name}-{uuid.uuid4().hex[:8]}"
