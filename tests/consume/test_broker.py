"""The broker is killed and restarted under consumers: they wait for it, and the contents stay exact."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.connection import Database
from tests.consume.consuming import STATUS, Fleet, reports
from tests.kafka import Broker, running_broker
from tests.support import until

PARTITIONS = 3

#: The first test waits for the broker, too.
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def own_broker() -> Iterator[Broker]:
    """A broker that a test may stop."""
    with running_broker() as broker:
        yield broker


@pytest.fixture
def fleet(tmp_path: Path, database: Database, own_broker: Broker) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, database.url, own_broker)
    yield fleet
    fleet.stop()


def expected(count: int) -> list[tuple[str, str]]:
    """Returns the rows of that many messages."""
    return [(f"v{number:06}", "driving") for number in range(count)]


#: Each ending once in CI, and all four cases among the slow tests.
_SLOW = pytest.mark.slow


@pytest.mark.parametrize("ending", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=_SLOW)])
def test_a_broker_that_ends_while_nothing_comes_is_waited_for(
    fleet: Fleet, own_broker: Broker, ending: signal.Signals
) -> None:
    fleet.make(PARTITIONS)
    consumer = fleet.consumer()
    fleet.send(STATUS, reports(*range(10)))
    fleet.until_at(STATUS, 10)
    own_broker.stop(ending)
    until(lambda: " waiting for Kafka " in consumer.log(), 30, consumer.log())
    own_broker.start()
    until(lambda: " Kafka is back " in consumer.log(), 60, consumer.log())
    fleet.send(STATUS, reports(*range(10, 20)))
    fleet.until_at(STATUS, 20)
    assert fleet.statuses() == expected(20)
    assert fleet.counts() == (20, 20, 0, 0)
    assert consumer.log().count(" waiting for Kafka ") == 1
    assert consumer.stop() == 0


@pytest.mark.parametrize("ending", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=_SLOW)])
def test_a_broker_that_ends_amid_a_full_load_costs_no_message_and_doubles_none(
    fleet: Fleet, own_broker: Broker, ending: signal.Signals
) -> None:
    count = 60_000
    fleet.make(PARTITIONS)
    for number in range(PARTITIONS):
        fleet.send(STATUS, reports(*range(number * count, (number + 1) * count)), number)
    consumer = fleet.consumer()
    until(lambda: sum(fleet.positions().values()) > 0, 30, fleet.logs())
    own_broker.stop(ending)
    assert sum(fleet.positions().values()) < PARTITIONS * count
    until(lambda: " waiting for Kafka " in consumer.log(), 30, consumer.log())
    own_broker.start()
    fleet.until_at(STATUS, *[count] * PARTITIONS, seconds=90)
    assert " Kafka is back " in consumer.log()
    assert fleet.statuses() == expected(PARTITIONS * count)
    assert fleet.counts() == (PARTITIONS * count, PARTITIONS * count, 0, 0)
    assert consumer.stop() == 0
