"""Consumers are killed, frozen and rebalanced, and their database goes away: the contents stay exact."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import psutil
import pytest

from tests.consume.consuming import STATUS, Fleet, reports
from tests.kafka import Broker
from tests.support import Daemon, Server, running_server, until

PARTITIONS = 3

#: The first test waits for the broker, too.
pytestmark = pytest.mark.timeout(300)

_FULL = (pytest.mark.slow, pytest.mark.timeout(3600))


def expected(count: int, partitions: int = PARTITIONS) -> list[tuple[str, str]]:
    """Returns the rows of that many messages in each partition."""
    return [(f"v{number:06}", "driving") for number in range(partitions * count)]


def feed(fleet: Fleet, count: int, seconds: float, partitions: int = PARTITIONS) -> Thread:
    """Sends so many messages to each partition over some time, in a thread."""

    def send() -> None:
        steps = 20
        for step in range(steps):
            for partition in range(partitions):
                first = partition * count + step * count // steps
                last = partition * count + (step + 1) * count // steps
                fleet.send(STATUS, reports(*range(first, last)), partition)
            time.sleep(seconds / steps)

    thread = Thread(target=send)
    thread.start()
    return thread


def until_it_moves(fleet: Fleet) -> None:
    """Waits until more is loaded than now."""
    before = sum(fleet.positions().values())
    until(lambda: sum(fleet.positions().values()) > before, 30, fleet.logs())


def finish(fleet: Fleet, count: int, thread: Thread, partitions: int = PARTITIONS) -> Daemon:
    """Waits until all is loaded, and compares the contents."""
    thread.join()
    consumer = fleet.consumer()
    fleet.until_at(STATUS, *[count] * partitions, seconds=60)
    assert fleet.statuses() == expected(count, partitions)
    assert fleet.counts() == (partitions * count, partitions * count, 0, 0)
    return consumer


@pytest.mark.parametrize(
    ("kills", "count", "partitions", "pause"),
    [(2, 4_000, 3, 0.0), pytest.param(30, 166_666, 6, 2.0, marks=_FULL, id="a million messages")],
)
def test_killed_consumers_lose_nothing_and_double_nothing(
    fleet: Fleet, kills: int, count: int, partitions: int, pause: float
) -> None:
    """Case D1: of two consumers the older is killed, again and again."""
    fleet.make(partitions)
    thread = feed(fleet, count, 2 * kills, partitions)
    running = [fleet.consumer() for _ in range(2)]
    for _ in range(kills):
        next_at = time.monotonic() + pause
        until_it_moves(fleet)
        time.sleep(max(0.0, next_at - time.monotonic()))
        running.append(fleet.consumer(wait=False))
        running.pop(0).stop(signal.SIGKILL)
    consumer = finish(fleet, count, thread, partitions)
    assert consumer.command("verify").stdout == "ledger, tables and folders add up\n"


def test_a_frozen_consumer_cannot_commit_what_others_have_loaded(fleet: Fleet) -> None:
    """Case D2: it is frozen for longer than its session, and wakes up when others are far ahead."""
    fleet.make(PARTITIONS)
    count = 2000
    thread = feed(fleet, count, 6)
    frozen = fleet.consumer()
    until(lambda: sum(fleet.positions().values()) > 0, 20)
    assert frozen.process is not None
    frozen.process.send_signal(signal.SIGSTOP)
    other = fleet.consumer()
    fleet.until_at(STATUS, *[count] * PARTITIONS)
    thread.join()
    frozen.process.send_signal(signal.SIGCONT)
    given_up = " partitions given up "
    until(lambda: given_up in frozen.log() or "another consumer was faster" in frozen.log(), 30, fleet.logs())
    assert fleet.statuses() == expected(count)
    assert fleet.counts() == (PARTITIONS * count, PARTITIONS * count, 0, 0)
    assert other.stop() == frozen.stop() == 0


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])
@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_consumers_that_come_and_go_all_the_time_make_progress(
    fleet: Fleet, strategy: str, times: int
) -> None:
    """Case D3."""
    fleet.settings["KAFKA_PARTITION_ASSIGNMENT_STRATEGY"] = strategy
    fleet.make(PARTITIONS)
    count = 1000 * times
    thread = feed(fleet, count, 6 * times)
    staying = fleet.consumer()
    for number in range(times):
        coming = fleet.consumer()
        if thread.is_alive():
            until_it_moves(fleet)
        assert coming.stop(signal.SIGINT if number % 2 else signal.SIGTERM) == 0
    assert staying.stop() == 0
    finish(fleet, count, thread)


@pytest.fixture
def own_server() -> Iterator[Server]:
    with running_server("fsync=off") as server:
        yield server


def test_while_the_database_is_away_it_stays_a_member_and_goes_on_by_itself(
    tmp_path: Path, own_server: Server, broker: Broker
) -> None:
    """Case D4: away for longer than the longest pause that the group allows between two polls."""
    own_server.execute("CREATE DATABASE fleet")
    fleet = Fleet(tmp_path, own_server.url("fleet"), broker, KAFKA_MAX_POLL_INTERVAL_MS=4000)
    try:
        fleet.make(PARTITIONS)
        consumer = fleet.consumer()
        fleet.send(STATUS, reports(*range(10)))
        fleet.until_at(STATUS, 10)
        own_server.stop(signal.SIGQUIT)
        fleet.send(STATUS, reports(*range(10, 20)))
        until(lambda: " waiting for the database " in consumer.log(), 20)
        gone_at = time.monotonic()
        until(lambda: time.monotonic() - gone_at > 6, 10)
        own_server.start("fsync=off")
        fleet.until_at(STATUS, 20)
        assert len(fleet.statuses()) == 20
        assert " partitions given up " not in consumer.log()
        assert " the database is back " in consumer.log()
        assert consumer.stop() == 0
    finally:
        fleet.stop()


def test_a_database_that_does_not_answer_holds_up_neither_the_group_nor_the_end(fleet: Fleet) -> None:
    """Its backend is frozen in the middle of a transaction."""
    fleet.settings["KAFKA_MAX_POLL_INTERVAL_MS"] = 4000
    fleet.make()
    consumer = fleet.consumer()
    fleet.send(STATUS, reports(0))
    fleet.until_at(STATUS, 1)
    with fleet.frozen_backend():
        fleet.send(STATUS, reports(*range(1, 10)))
        frozen_at = time.monotonic()
        until(lambda: time.monotonic() - frozen_at > 6, 10)
        assert " partitions given up " not in consumer.log()
        begun = time.monotonic()
        assert consumer.stop(signal.SIGINT) == 0
        assert time.monotonic() - begun < 6
    fleet.consumer()
    fleet.until_at(STATUS, 10)
    assert fleet.counts() == (10, 10, 0, 0)


@pytest.mark.slow
def test_a_hundred_partitions_of_large_messages_take_no_more_memory_than_is_stated(fleet: Fleet) -> None:
    """Case D14."""
    fleet.broker.make_topic(fleet.topic(STATUS), 100)
    padding = "x" * 900_000
    for partition in range(100):
        values = [
            value[:-1] + b',"padding":"%b"}' % padding.encode()
            for value in reports(partition, 100 + partition)
        ]
        fleet.send(STATUS, values, partition)
    consumer = fleet.consumer(KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS=1000)
    assert consumer.process is not None
    most = 0

    def is_done() -> bool:
        nonlocal most
        most = max(most, psutil.Process(consumer.process.pid).memory_info().rss)  # type: ignore[union-attr]
        return sum(fleet.positions().values()) >= 200

    until(is_done, 110)
    assert most < 250 * 1024 * 1024
