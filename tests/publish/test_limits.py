"""Settings of topics that change while the publisher runs, and files at the limits of a transaction."""

import random
import signal

import pytest
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from tests.kafka import Broker
from tests.publish.publisher import PublisherDaemon, S, content, file_of, values
from tests.support import report, statuses, until


def alter(broker: Broker, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    (altered,) = broker.admin.incremental_alter_configs([resource]).values()
    altered.result(30)


def noise(size: int, seed: int) -> str:
    """Text that no compression makes much smaller."""
    return random.Random(seed).randbytes(size // 2).hex()


def test_a_topic_that_takes_smaller_messages_from_now_on_fails_no_good_file(
    publisher: PublisherDaemon, broker: Broker
) -> None:
    publisher.start()
    publisher.drop(f"{S}0.json", content(0, 10))
    publisher.until_empty()
    alter(broker, f"{publisher.topics}.vehicle_status", "max.message.bytes", "50000")
    small = [report(n, vehicle="one", n=n, text=noise(10_000, n)) for n in range(40)]
    large = report(vehicle="one", text=noise(100_000, 99))
    publisher.drop(f"{S}1.json", statuses(*small, large))
    publisher.until_empty()
    assert publisher.published() == values(*file_of(0, 10), *small)
    (reject,) = publisher.topic("rejects")
    assert (reject.value["reason"], reject.value["original"]) == ("refused", large)
    assert publisher.stop() == 0 and " failed=0 " in publisher.log()


@pytest.mark.slow
def test_a_topic_that_is_deleted_is_made_again(publisher: PublisherDaemon, broker: Broker) -> None:
    publisher.start()
    publisher.drop(f"{S}0.json", content(0, 10))
    publisher.until_empty()
    broker.delete_topic(f"{publisher.topics}.vehicle_status")
    publisher.drop(f"{S}1.json", content(1, 10))
    publisher.until_empty(90)
    assert publisher.published() == values(*file_of(1, 10))
    assert publisher.stop() == 0 and " failed=0 " in publisher.log()


def test_of_a_large_file_with_too_many_rejects_no_part_is_published(publisher: PublisherDaemon) -> None:
    """Not only what is invalid counts, but also what only the publisher rejects."""
    late = report() | {"report_time": "2199-01-01T00:00:00Z"}
    publisher.set(KAFKA_TRANSACTION_TIMEOUT_MS=10_000, MAX_REJECT_RATIO=0)
    publisher.drop(f"{S}0.json", statuses(*file_of(0, 900, text="x" * 20_000), late))
    publisher.start("--once", "--plain", wait=False)
    assert publisher.wait() == 1, publisher.log()
    assert publisher.topic("vehicle_status") == publisher.topic("rejects") == []
    entry = publisher.ledger()[f"{S}0.json"]
    assert (entry["state"], "got 1 of 901" in entry["reason"]) == ("failed", True)


def test_published_files_go_to_the_archive_if_asked(publisher: PublisherDaemon) -> None:
    """And what is the publisher's own to set may be set, without harm."""
    publisher.set(ON_LOADED="archive", ARCHIVE_FOLDER=publisher.incoming / "archive")
    publisher.set(KAFKA_TRANSACTIONAL_ID="users", KAFKA_ENABLE_IDEMPOTENCE="false", KAFKA_GROUP_ID="other")
    publisher.drop(f"{S}0.json", content(0, 10))
    publisher.start("--once", "--plain", wait=False)
    assert publisher.wait() == 0, publisher.log()
    (archived,) = (publisher.incoming / "archive").glob("*/*.json")
    assert archived.read_bytes() == content(0, 10)
    assert publisher.published() == values(*file_of(0, 10))


@pytest.mark.slow
def test_ctrl_c_amid_a_large_file_ends_it_soon_and_the_next_start_goes_on(publisher: PublisherDaemon) -> None:
    name, count = f"{S}large.json", 20_000
    publisher.set(KAFKA_TRANSACTION_TIMEOUT_MS=15_000)
    publisher.drop(name, content(0, count, text="x" * 2_000))
    publisher.start()
    until(lambda: publisher.ledger().get(name, {}).get("state") == "in parts", 60, "a part is committed")
    assert publisher.stop(signal.SIGINT) == 0
    assert publisher.left() == [name]
    publisher.start()
    publisher.until_empty(60)
    assert publisher.published() == values(*file_of(0, count, text="x" * 2_000))
