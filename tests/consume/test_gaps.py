"""What is missing in a topic, or new: the consumer stops and names it, or goes on where it has to."""

from contextlib import closing

import pytest
from psycopg2.extensions import parse_dsn

from db.connection import Database
from tests.consume.consuming import STATUS, Fleet, reports
from tests.support import Daemon, Server, query, until

#: The first test waits for the broker, too.
pytestmark = pytest.mark.timeout(300)


def ended(consumer: Daemon) -> tuple[int, str]:
    """Returns the exit code of a consumer that ends by itself, and the line that says why."""
    code = consumer.wait(40)
    consumer.process = None
    return code, next(line for line in consumer.log().splitlines() if " ended " in line)


def load(fleet: Fleet, first: int, last: int) -> None:
    """Loads messages, and stops the consumer."""
    fleet.send(STATUS, reports(*range(first, last)))
    consumer = fleet.consumer()
    fleet.until_at(STATUS, last)
    assert consumer.stop() == 0


#: What status says when no consumer is there.
NOBODY = "no consumer is in the group {}"


def shown(fleet: Fleet) -> str:
    """Returns what status prints."""
    return fleet.consumers[-1].command("status").stdout


def status_of(fleet: Fleet) -> list[str]:
    """Returns what needs a person, by status --check, whose exit code agrees."""
    done = fleet.consumers[-1].command("status", "--check")
    needs = done.stdout.partition("\nneeds a person\n")[2].partition("\n\n")[0].splitlines()
    assert done.returncode == bool(needs), done
    return needs


def test_a_log_that_begins_beyond_the_position_stops_it_until_somebody_accepts_that(fleet: Fleet) -> None:
    """Case D7."""
    fleet.make()
    load(fleet, 0, 5)
    fleet.send(STATUS, reports(*range(5, 12)))
    fleet.broker.delete_before(fleet.topic(STATUS), 0, 9)
    code, why = ended(fleet.consumer())
    assert code == 2
    assert f"partition 0 of {fleet.topic(STATUS)} lacks the offsets 5 to 8" in why
    assert fleet.positions()[STATUS, 0] == 5
    lacks = f"partition 0 of {fleet.topic(STATUS)} lacks the offsets 5 to 8, which were not loaded yet"
    assert status_of(fleet) == [f"messages are missing: {lacks}", NOBODY.format(fleet.group)]
    consumer = fleet.consumer("--accept-gap")
    fleet.until_at(STATUS, 12)
    assert status_of(fleet) == []
    assert f"  {fleet.topic(STATUS)}/0  offset 5 to 9  the log begins later, accepted by " in shown(fleet)
    assert " gap accepted " in consumer.log()
    assert fleet.rows("SELECT partition, first_offset, resume_offset FROM mobileye_data.stream_gaps") == [
        (0, 5, 9)
    ]
    assert len(fleet.statuses()) == 5 + 3
    assert consumer.stop() == 0


def test_it_notices_while_it_runs_that_what_it_wants_is_gone(fleet: Fleet, server: Server) -> None:
    """Its table is locked, so that it falls behind."""
    fleet.make()
    consumer = fleet.consumer()
    fleet.send(STATUS, reports(0))
    fleet.until_at(STATUS, 1)
    with closing(Database(fleet.url).connect()) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE mobileye_data.stream_positions IN EXCLUSIVE MODE")
        fleet.send(STATUS, reports(*range(1, 10)))
        fleet.broker.delete_before(fleet.topic(STATUS), 0, 10)
        until(lambda: " waiting for the database " in consumer.log(), 20, fleet.logs())
    code, why = ended(consumer)
    assert code == 2
    assert "lacks the offsets 1 to 9" in why


def test_a_topic_that_was_deleted_and_made_again_stops_it_until_somebody_accepts_that(fleet: Fleet) -> None:
    """Case D8: the new one has more messages than were loaded, so an offset alone would pass over some."""
    fleet.make()
    load(fleet, 0, 5)
    fleet.broker.delete_topic(fleet.topic(STATUS))
    fleet.broker.make_topic(fleet.topic(STATUS))
    fleet.send(STATUS, reports(*range(100, 110)))
    code, why = ended(fleet.consumer())
    assert code == 2
    assert f"the topic {fleet.topic(STATUS)} was deleted and made again" in why
    assert f"messages are missing: the topic {fleet.topic(STATUS)} was" in shown(fleet)
    assert len(fleet.statuses()) == 5
    consumer = fleet.consumer("--accept-gap")
    until(lambda: len(fleet.statuses()) == 15, 30, fleet.logs())
    assert consumer.stop() == 0
    consumer = fleet.consumer()  # once accepted, it is forgotten
    fleet.send(STATUS, reports(110))
    until(lambda: len(fleet.statuses()) == 16, 30, fleet.logs())
    assert consumer.stop() == 0


def test_a_topic_that_is_made_again_while_it_is_read_stops_it(fleet: Fleet) -> None:
    """Case D8, with a consumer that runs: what it read before it noticed, it reads again."""
    fleet.make()
    consumer = fleet.consumer()
    fleet.send(STATUS, reports(*range(5)))
    fleet.until_at(STATUS, 5)
    fleet.broker.delete_topic(fleet.topic(STATUS))
    fleet.broker.make_topic(fleet.topic(STATUS))
    fleet.send(STATUS, reports(*range(100, 120)))
    code, why = ended(consumer)
    assert code == 2
    assert "was deleted and made again" in why
    fleet.consumer("--accept-gap")
    until(lambda: len(fleet.statuses()) == 25, 30, fleet.logs())


def test_a_database_restored_from_an_older_backup_gets_the_difference(fleet: Fleet, server: Server) -> None:
    """Case D9: complete, not doubled, and nobody has to tell Kafka."""
    fleet.make()
    load(fleet, 0, 5)
    name = parse_dsn(fleet.url)["dbname"]
    older = f"{name}_older"
    server.execute(f"CREATE DATABASE {older} TEMPLATE {name}")
    try:
        load(fleet, 5, 20)
        fleet.url = server.url(older)
        consumer = fleet.consumer()
        fleet.until_at(STATUS, 20)
        assert fleet.counts() == (20, 20, 0, 0)
        assert consumer.command("verify").stdout == "ledger, tables and folders add up\n"
        assert consumer.stop() == 0
    finally:
        server.execute(f"DROP DATABASE {older} WITH (FORCE)")


def test_new_partitions_are_read_from_their_beginning(fleet: Fleet) -> None:
    """Case D13."""
    fleet.settings["KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS"] = 1000
    fleet.make()
    consumer = fleet.consumer()
    fleet.send(STATUS, reports(0))
    fleet.until_at(STATUS, 1)
    fleet.broker.add_partitions(fleet.topic(STATUS), 3)
    for partition in (1, 2):
        fleet.send(STATUS, reports(10 * partition, 10 * partition + 1), partition)
    fleet.until_at(STATUS, 1, 2, 2)
    assert len(fleet.statuses()) == 5
    assert consumer.stop() == 0


def test_without_an_address_or_with_an_unknown_property_it_says_what_to_set(fleet: Fleet) -> None:
    daemon = Daemon(fleet.consumers_folder / "none", fleet.url)
    daemon.folder.mkdir()
    found = daemon.command("consume")
    assert (found.returncode, "KAFKA_BOOTSTRAP_SERVERS is not set" in found.stderr) == (2, True)
    daemon.set(KAFKA_BOOTSTRAP_SERVERS=fleet.broker.servers, KAFKA_SASL_USER="x")
    found = daemon.command("consume")
    assert found.returncode == 2
    assert "No such configuration property: KAFKA_SASL_USER\n" in found.stderr
    daemon.set(KAFKA_SASL_USER="", KAFKA_ISOLATION_LEVEL="read_uncommitted")
    found = daemon.command("consume")
    assert (found.returncode, "KAFKA_ISOLATION_LEVEL can't be set" in found.stderr) == (2, True)
    assert query(fleet.url, "SELECT count(*) FROM mobileye_data.stream_positions") == [(0,)]
