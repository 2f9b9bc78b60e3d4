"""Health: alive while the main loop turns, ready while files can be loaded."""

import pytest

from monitor.health import Health
from processing.errors import DatabaseUnavailable
from service import events
from service.events import Resource

STARTED = events.Started("in", "native", 2, None, "data", None)


class World:
    """What the daemon needs, as it is now."""

    now = 0.0
    folder = ""
    database = ""
    asked = 0

    def ask(self) -> None:
        self.asked += 1
        if self.database:
            raise DatabaseUnavailable(self.database)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def health(world: World) -> Health:
    return Health(lambda: world.folder, world.ask, clock=lambda: world.now)


@pytest.fixture
def running(health: Health) -> Health:
    health.note(STARTED)
    health.note(events.LoopTurned())
    return health


def test_a_daemon_that_starts_is_alive_and_not_ready(health: Health) -> None:
    assert (health.why_not_alive(), health.why_not_ready()) == ("", "the daemon is starting")
    health.note(events.OutageBegan(Resource.DATABASE, "connection refused"))
    assert health.why_not_ready() == "an outage of the database: connection refused"
    health.note(STARTED)
    assert health.why_not_ready() == "the daemon is starting"


def test_a_daemon_that_runs_is_alive_and_ready(running: Health) -> None:
    assert (running.why_not_alive(), running.why_not_ready()) == ("", "")


def test_a_main_loop_that_stands_still_is_not_alive(running: Health, world: World) -> None:
    world.now = 90
    assert running.why_not_alive() == ""
    world.now = 91
    assert running.why_not_alive() == "the main loop has not turned for 91 s"
    assert running.why_not_ready() == "the main loop has not turned for 91 s"
    running.note(events.LoopTurned())
    assert running.why_not_alive() == ""


def test_a_slow_start_of_the_embedded_database_may_hold_up_the_main_loop(
    running: Health, world: World
) -> None:
    running.note(events.DatabaseSlow("it recovers"))
    world.now = 700
    assert running.why_not_alive() == ""
    running.note(events.LoopTurned())
    world.now = 800
    assert running.why_not_alive() != ""


def test_an_outage_is_named_until_it_ends(running: Health) -> None:
    running.note(events.OutageBegan(Resource.WORKERS, "no memory"))
    assert running.why_not_ready() == "an outage of a worker: no memory"
    running.note(events.OutageReasonChanged(Resource.WORKERS, "no process"))
    assert running.why_not_ready() == "an outage of a worker: no process"
    running.note(events.OutageEnded(Resource.WORKERS, 1.0))
    assert running.why_not_ready() == ""


def test_a_folder_that_cannot_be_read_is_named(running: Health, world: World) -> None:
    world.folder = "the watch folder can't be listed: Permission denied"
    assert running.why_not_ready() == world.folder
    assert running.why_not_alive() == ""


def test_the_database_is_asked_at_most_every_five_seconds(running: Health, world: World) -> None:
    world.database = "connection refused"
    for _ in range(10):
        assert running.why_not_ready() == "the database does not answer: connection refused"
    assert world.asked == 1
    world.database = ""
    world.now = 5
    assert running.why_not_ready() == ""
    assert world.asked == 2


def test_whoever_takes_the_rows_is_named(world: World) -> None:
    health = Health(lambda: "", world.ask, Resource.BROKER, lambda: world.now)
    health.note(events.LoopTurned())
    world.database = "Connection refused"
    assert health.why_not_ready() == "Kafka does not answer: Connection refused"
