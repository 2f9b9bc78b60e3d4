"""Kafka with a password or a certificate over TLS: who may do what, and what is said of what is wrong."""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import NamedTuple
from urllib.request import urlopen

import pytest
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._resource import ResourceType

from db.connection import Database
from tests.consume.consuming import EVENTS, STATUS
from tests.kafka import running, unique
from tests.publish.publisher import PublisherDaemon, S, content, file_of, values
from tests.secured_kafka import LOST, SecuredBroker
from tests.support import Daemon, free_port, until

#: The first test waits for the broker, too.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def secured() -> Iterator[SecuredBroker]:
    with running(SecuredBroker) as broker:
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

    def show_certificates(self, authority: str = "right") -> None:
        """Lets both show a certificate instead of the password, which is that of its key from now on."""
        certified = self.broker.certified(self.name, self.password, authority)
        self.set(**certified)
        self.unset("KAFKA_SASL_MECHANISMS", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD")

    def unset(self, *names: str) -> None:
        for daemon in (self.publisher, self.consumer):
            daemon.unset(*names)

    def rows(self) -> int:
        ((count,),) = self.consumer.rows("SELECT count(*) FROM mobileye_data.vehicle_status_history")
        return int(count)


@pytest.fixture
def users(tmp_path: Path, database: Database, secured: SecuredBroker) -> Iterator[Users]:
    name, password, prefix = unique("user"), secrets.token_hex(8), unique("secured")
    secured.set_password(name, password)
    for user in (name, f"CN={name}"):  # with the password, and with a certificate
        allow_publish(secured, user, prefix)
        allow_consume(secured, user, prefix)
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


@pytest.mark.parametrize("with_certificate", [False, True], ids=["password", "certificate"])
def test_files_become_rows_with_the_least_rights_and_nobody_sees_the_password(
    users: Users, *, with_certificate: bool
) -> None:
    if with_certificate:
        users.show_certificates()
    address = f"127.0.0.1:{free_port()}"
    users.consumer.set(METRICS_ADDRESS=address)
    users.start()
    users.publisher.drop(f"{S}1.json", content(1, 100))
    users.publisher.until_empty(60)
    until(lambda: users.rows() == 100, 30, users.consumer.log())
    assert users.publisher.published() == values(*file_of(1, 100))
    status = users.consumer.command("status")
    assert ", 0 messages to load, " in status.stdout
    published = users.publisher.command("status")
    assert "\nrecords    100 = 100 published + 0 rejected\n" in published.stdout, published.stderr
    with urlopen(f"http://{address}/metrics") as answer:
        metrics = answer.read().decode()
    assert users.publisher.stop() == users.consumer.stop() == 0
    written = users.publisher.log() + users.consumer.log() + metrics
    written += status.stdout + status.stderr + published.stdout + published.stderr
    assert users.password not in written


def assert_it_ends(users: Users, command: str, reason: str) -> None:
    """Starts it, and checks that it ends with code 2 and one sentence."""
    daemon = users.publisher if command == "publish" else users.consumer
    Daemon.start(daemon, command, wait=False)
    assert daemon.wait(30) == 2, daemon.log()
    ending = daemon.log().splitlines()[-1]
    assert reason in ending and users.password not in daemon.log() and "Traceback" not in daemon.log()


#: What is wrong, and what is said of it.
_WRONG = [
    ("password", "Authentication failed"),
    ("certificate", "broker certificate could not be verified"),
    ("topic", "uthorization failed"),
]


#: What is said if the broker refuses a client's certificate, or if there is none.
_WANTED = "; perhaps the broker wants another KAFKA_SSL_CERTIFICATE_LOCATION"


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
    assert_it_ends(users, command, reason)


@pytest.mark.parametrize(
    ("command", "wrong", "reason"),
    [
        ("publish", "none", _WANTED),
        ("consume", "of another authority", _WANTED),
        ("publish", "key", "KAFKA_SSL_KEY_LOCATION failed"),
    ],
)
def test_what_is_wrong_with_a_client_s_certificate_is_one_sentence(
    users: Users, command: str, wrong: str, reason: str
) -> None:
    users.show_certificates("wrong" if wrong == "of another authority" else "right")
    if wrong == "none":
        users.unset(
            *(f"KAFKA_SSL_{name}" for name in ("CERTIFICATE_LOCATION", "KEY_LOCATION", "KEY_PASSWORD"))
        )
    elif wrong == "key":
        users.set(KAFKA_SSL_KEY_PASSWORD="another")
    assert_it_ends(users, command, reason)


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
    last = drop_until_it_ends(users.publisher)
    assert (users.consumer.wait(30), users.publisher.wait(30)) == (2, 2)
    for daemon in (users.publisher, users.consumer):
        ending = daemon.log().splitlines()[-1]
        assert dict(_WRONG)[wrong] in ending and "Traceback" not in daemon.log()
        assert users.password not in daemon.log()
    assert last in users.publisher.left()


def drop_until_it_ends(publisher: PublisherDaemon) -> str:
    """Returns the last name: a publisher that knows of no file does not ask whether it still may."""
    for number in range(2, 32):
        publisher.drop(name := f"{S}{number}.json", content(number, 10))
        with suppress(TimeoutExpired):
            publisher.wait(1)
            return name
    raise AssertionError(publisher.log())


def slips(broker: SecuredBroker) -> list[tuple[str, dict[str, object], str]]:
    """Commands with a slip in the settings, and what is said of it while Kafka is waited for."""
    tls, lost = f"127.0.0.1:{broker.secured_port}", f"127.0.0.1:{broker.lost_port}"
    wants_tls = "; perhaps it wants another KAFKA_SECURITY_PROTOCOL"
    has_no_tls: dict[str, object] = {
        "KAFKA_BOOTSTRAP_SERVERS": broker.servers,
        "KAFKA_SECURITY_PROTOCOL": "SSL",
    }
    gives_out = f"; {LOST} is what the broker itself gives out as its address (advertised.listeners)"
    return [
        ("publish", {"KAFKA_BOOTSTRAP_SERVERS": "no.invalid:9092"}, "Failed to resolve 'no.invalid:9092'"),
        ("consume", {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "127.0.0.1:1 failed: Connection refused"),
        ("publish", {"KAFKA_BOOTSTRAP_SERVERS": tls}, wants_tls),
        ("consume", {"KAFKA_BOOTSTRAP_SERVERS": tls}, wants_tls),
        ("consume", has_no_tls, "connecting to a PLAINTEXT broker listener?"),
        ("consume", {"KAFKA_BOOTSTRAP_SERVERS": lost}, gives_out),
        ("publish", {"KAFKA_BOOTSTRAP_SERVERS": lost}, gives_out),
    ]


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(slice(-1), id="quick"),
        pytest.param(slice(-1, None), id="after 20 s", marks=pytest.mark.slow),
    ],
)
def test_of_a_slip_in_the_settings_it_says_what_it_may_be(
    tmp_path: Path, secured: SecuredBroker, database: Database, chosen: slice
) -> None:
    """All of them at once, since each is noticed only after a time-out."""
    cases = slips(secured)[chosen]
    daemons = [Daemon(tmp_path / str(number), database.url, **case[1]) for number, case in enumerate(cases)]
    try:
        for daemon, (command, _, _) in zip(daemons, cases, strict=True):
            daemon.start(command, wait=False)
        for daemon, (command, _, reason) in zip(daemons, cases, strict=True):
            until_said(daemon, f"{command}: {reason}", reason)
    finally:
        for daemon in daemons:
            daemon.stop()


def until_said(daemon: Daemon, what: str, reason: str) -> None:
    try:
        until(lambda: reason in daemon.log(), 60)
    except AssertionError:
        raise AssertionError(f"{what}, not said in:\n{daemon.log()}") from None
    said = next(line for line in daemon.log().splitlines() if reason in line)
    assert " waiting for Kafka " in said or " Kafka is still away " in said
