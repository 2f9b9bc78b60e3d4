"""The state that follows from events, and rates and times that follow from their times."""

from monitor.tally import Tally, View, Work
from processing.batch import Outcome
from processing.sink import Counts
from service import events
from service.events import Event, FileProgress, Resource, WorkChanged

STARTED = events.Started("/here/in", "native", 2, None, None, "postgresql://u:secret@h:1/d")


def after(*taken: tuple[float, Event], now: float) -> View:
    tally = Tally(0.0, "/here")
    for at, event in taken:
        tally.take(event, at)
    return tally.view(now)


def loaded(name: str, rows: int, rejected: int = 0) -> Event:
    return events.FileLoaded(Outcome(name, "loaded", counts=Counts(rows + rejected, rows, 0, rejected)))


def test_it_shows_what_is_watched_and_where_rows_go_without_the_password() -> None:
    view = after((0, STARTED), now=3725.4)
    assert (view.folder, view.place, view.observer, view.workers) == ("in", "h:1/d", "native", 2)
    assert view.seconds == 3725
    embedded = events.Started("/there", "off", 1, None, "/here/data", None)
    view = after((0, embedded), now=1)
    assert (view.folder, view.place) == ("/there", "embedded PostgreSQL in data")
    assert view.destination == "database"


def test_a_publisher_shows_its_topics_and_whether_kafka_answers() -> None:
    tally = Tally(0.0, "/here", Resource.BROKER)
    tally.take(events.Started("/here/in", "native", 1, None, None, None, "fleet.* of Kafka at k:9092"), 0)
    view = tally.view(1)
    assert (view.place, view.destination) == ("topics fleet.* of Kafka at k:9092", "Kafka")
    assert view.unit == "record"


def test_it_counts_files_by_their_end() -> None:
    view = after(
        (1, loaded("a", 3, rejected=2)),
        (1, events.FileDuplicate(Outcome("b", "duplicate"))),
        (1, events.FileFailed(Outcome("c", "failed"))),
        (1, events.WorkerDied(["d"], "no", events.NextTry())),
        now=2,
    )
    assert (view.loaded, view.rows, view.rejected) == (1, 3, 2)
    assert (view.duplicate, view.failed, view.deaths) == (1, 1, 1)


def test_a_rate_is_that_of_the_last_seconds() -> None:
    burst = [(10 + number / 100, loaded(str(number), 5)) for number in range(200)]
    view = after(*burst, now=12)
    assert (view.files_per_second, view.rows_per_second) == (100.0, 500.0)
    view = after(*burst, now=20)
    assert (view.files_per_second, view.rows_per_second) == (0.0, 0.0)


def test_a_backlog_has_a_share_and_a_time_left() -> None:
    files = [(1 + number / 100, loaded(str(number), 1)) for number in range(100)]
    view = after((1, WorkChanged(800, 100, 0, 2, 2)), *files, (2, WorkChanged(700, 100, 3, 2, 2)), now=2)
    assert view.backlog == Work(done=100, left=800, seconds_left=8)
    assert (view.ready, view.waiting, view.busy) == (800, 3, 2)


def test_a_backlog_that_is_done_is_forgotten() -> None:
    files = [(1.0, loaded(str(number), 1)) for number in range(100)]
    view = after(*files, (2, WorkChanged(0, 0, 0, 2, 0)), (3, WorkChanged(30, 0, 0, 2, 1)), now=3)
    assert view.backlog is not None and view.backlog.done == 0


def test_a_few_files_are_no_backlog() -> None:
    assert after((1, WorkChanged(3, 2, 0, 2, 1)), now=1).backlog is None


def large(read_bytes: int, records: int) -> Event:
    return WorkChanged(0, 1, 0, 2, 1, [FileProgress("a", 1000, read_bytes, records)])


def test_a_large_file_has_a_rate_and_a_time_left() -> None:
    view = after((1, large(0, 0)), (2, large(100, 5000)), (3, large(200, 10_000)), now=3)
    (file,) = view.large
    assert (file.file, file.size, file.read_bytes, file.seconds_left) == ("a", 1000, 200, 4)
    assert file.rows_per_second == view.rows_per_second == 10_000


def test_rows_of_a_large_file_are_counted_once() -> None:
    view = after((1, large(0, 0)), (1.5, large(900, 900)), (2, loaded("a", 1000)), now=2.5)
    assert view.large == () and view.rows_per_second == 1000.0


def test_a_file_that_is_read_a_second_time_begins_anew() -> None:
    view = after((1, large(900, 900)), (2, large(100, 100)), now=2)
    assert view.large[0].read_bytes == 100


def test_troubles_last_until_they_are_over() -> None:
    began = [
        (1.0, events.OutageBegan(Resource.DATABASE, "no")),
        (1.0, events.OutageReasonChanged(Resource.DATABASE, "refused")),
        (1.0, events.OutageBegan(Resource.WORKERS, "no memory")),
        (1.0, events.OutageBegan(Resource.BUCKET, "slow down")),
        (1.0, events.QueueSilent("gone")),
        (1.0, events.ObserverFailed("in", "no watches")),
        (1.0, events.FolderUnreadable("in", "gone")),
    ]
    assert after(*began, now=1).troubles == {
        "database": "refused",
        "workers": "no memory",
        "bucket": "slow down",
        "queue": "gone",
        "observer": "no watches",
        "folder": "gone",
    }
    ended: list[tuple[float, Event]] = [
        (2, events.OutageEnded(Resource.DATABASE, 1.0)),
        (2, events.OutageEnded(Resource.WORKERS, 1.0)),
        (2, events.OutageEnded(Resource.BUCKET, 1.0)),
        (2, events.QueueAnswered()),
        (2, events.ObserverWorks("in")),
        (2, events.FolderReadable("in")),
    ]
    assert after(*began, *ended, now=2).troubles == {}


def test_a_database_that_starts_is_a_trouble_until_the_daemon_watches() -> None:
    slow = events.DatabaseSlow("it recovers")
    assert after((1, slow), now=1).troubles == {"database": "it recovers"}
    assert after((1, slow), (2, STARTED), now=2).troubles == {}
