"""Kafka with a password over TLS: who may do what, and what is said if the password or a right is wrong."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import pytest
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._resource import ResourceType

from db.connection import Database
from tests.consume.consuming import EVENTS, STATUS
from tests.kafka import unique
from tests.publish.publisher import PublisherDaemon, S, content, file_of, values
from tests.secured_kafka import SecuredBroker, running_secured_broker
from tests.support import Daemon, free_port, until

#: The first test waits for the broker, too.
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def secured() -> Iterator[SecuredBroker]:
    with running_secured_broker() as broker:
        yield broker


class Users(NamedTuple):
    """A publisher and a consumer of the same topics, with the least rights and one password."""

    broker: SecuredBroker
    name: str
    password: str
    publisher: PublisherDaemon
    consumer: Daemon

    def set(self, **settings: object) -> None:
        for daemon in (self.publisher, self.consumer):
            daemon.set(**settings)

    def start(self) -> None:
        self.publisher.start()
        self.consumer.start("consume", wait=False)
        until(lambda: " consuming " in self.consumer.log(), 30, "it consumes")

    def rows(self) -> int:
        ((count,),) = self.consumer.rows("SELECT count(*) FROM mobileye_data.vehicle_status_history")
        return int(count)


@pytest.fixture
def users(tmp_path: Path, database: Database, secured: SecuredBroker) -> Iterator[Users]:
    name, password, prefix = unique("user"), secrets.token_hex(8), unique("secured")
    secured.set_password(name, password)
    allow_publish(secured, name, prefix)
    allow_consume(secured, name, prefix)
    (tmp_path / "publisher").mkdir()
    publisher = PublisherDaemon(tmp_path / "publisher", secured, prefix)
    consumer = Daemon(tmp_path / "consumer", database.url, KAFKA_TOPIC_PREFIX=prefix, KAFKA_GROUP=prefix)
    users = Users(secured, name, password, publisher, consumer)
    users.set(**secured.client(name, password))
    yield users
    for daemon in (publisher, consumer):
        if daemon.process is not None:
            daemon.stop()


def allow_publish(broker: SecuredBroker, user: str, prefix: str) -> None:
    """The rights that docs/kafka.md lists."""
    usual = (AclOperation.CREATE, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS, AclOperation.WRITE)
    broker.allow(user, ResourceType.TOPIC, f"{prefix}.", *usual)
    broker.allow(user, ResourceType.TOPIC, f"{prefix}.ledger", AclOperation.READ)
    broker.allow(user, ResourceType.TRANSACTIONAL_ID, f"{prefix}-", AclOperation.WRITE)


def allow_consume(broker: SecuredBroker, user: str, prefix: str) -> None:
    """The rights that docs/kafka.md lists."""
    for topic in (EVENTS, STATUS):
        broker.allow(user, ResourceType.TOPIC, f"{prefix}.{topic}", AclOperation.READ)
    broker.allow(user, ResourceType.GROUP, prefix, AclOperation.READ)


def test_files_become_rows_with_the_least_rights_and_nobody_sees_the_password(users: Users) -> None:
    address = f"127.0.0.1:{free_port()}"
    users.consumer.set(METRICS_ADDRESS=address)
    users.start()
    users.publisher.drop(f"{S}1.json", content(1, 100))
    users.publisher.until_empty(60)
    until(lambda: users.rows() == 100, 30, users.consumer.log())
    assert users.publisher.published() == values(*file_of(1, 100))
    status = users.consumer.command("status")
    assert ", 0 messages to load, " in status.stdout
    with urlopen(f"http://{address}/metrics") as answer:
        metrics = answer.read().decode()
    assert users.publisher.stop() == users.consumer.stop() == 0
    written = users.publisher.log() + users.consumer.log() + status.stdout + status.stderr + metrics
    assert users.password not in written


#: What is wrong, and what is said of it.
_WRONG = [
    ("password", "Authentication failed"),
    ("certificate", "broker certificate could not be verified"),
    ("topic", "uthorization failed"),
]


@pytest.mark.parametrize(
    ("command", "wrong", "reason"),
    [
        *(("publish", *case) for case in _WRONG),
        ("publish", "transactional id", "Transactional Id authorization failed"),
        *(pytest.param("consume", *case, marks=pytest.mark.slow) for case in _WRONG),
        ("consume", "group", "Group authorization failed"),
    ],
)
def test_what_is_wrong_at_the_start_is_one_sentence(
    users: Users, command: str, wrong: str, reason: str
) -> None:
    daemon = users.publisher if command == "publish" else users.consumer
    daemon.set(**spoilt(users, wrong))
    users.publisher.drop(f"{S}1.json", content(1, 10))
    daemon.start(*([command] if daemon is users.consumer else []), wait=False)
    assert daemon.wait(30) == 2, daemon.log()
    ending = daemon.log().splitlines()[-1]
    assert reason in ending and users.password not in daemon.log() and "Traceback" not in daemon.log()


def spoilt(users: Users, what: str) -> dict[str, object]:
    """Takes something away; returns the settings for that."""
    kinds = {
        "topic": ResourceType.TOPIC,
        "transactional id": ResourceType.TRANSACTIONAL_ID,
        "group": ResourceType.GROUP,
    }
    if what in kinds:
        users.broker.forbid(users.name, kinds[what])
    return {
        "password": {"KAFKA_SASL_PASSWORD": "wrong-" + users.password[::-1]},
        "certificate": {"KAFKA_SSL_CA_LOCATION": users.broker.wrong_ca},
    }.get(what, {})  # type: ignore[return-value]


@pytest.mark.parametrize("wrong", ["password", "topic"])
def test_what_goes_wrong_while_they_run_ends_them(users: Users, wrong: str) -> None:
    users.start()
    users.publisher.drop(f"{S}1.json", content(1, 10))
    until(lambda: users.rows() == 10, 60, users.consumer.log())
    if wrong == "password":
        users.broker.set_password(users.name, "another one")
        assert users.consumer.wait(30) == 2
    else:
        users.broker.forbid(users.name, ResourceType.TOPIC)
    users.publisher.drop(f"{S}2.json", content(2, 10))
    assert (users.consumer.wait(30), users.publisher.wait(30)) == (2, 2)
    for daemon in (users.publisher, users.consumer):
        ending = daemon.log().splitlines()[-1]
        assert dict(_WRONG)[wrong] in ending and "Traceback" not in daemon.log()
        assert users.password not in daemon.log()
    assert users.publisher.left() == [f"{S}2.json"]
