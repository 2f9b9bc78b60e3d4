"""The publisher as a process: files become messages, each once, and readers see each whole."""

import gzip
import json
import signal

import pytest

from tests.kafka import Broker, unique
from tests.monitor.test_terminal import at_terminal
from tests.publish.publisher import PublisherDaemon, S, content, file_of, values
from tests.support import detections, event, report, statuses, until


def test_files_become_messages_and_are_gone(publisher: PublisherDaemon) -> None:
    reports = [report(0), report(60, "parking", level=1.5)]
    publisher.drop(f"{S}1.json", statuses(*reports))
    publisher.drop("objects_detection_1.json.gz", gzip.compress(detections(event(0), event(1))))
    publisher.start("--once", "--plain", wait=False)
    assert publisher.wait() == 0, publisher.log()
    assert publisher.left() == []
    found = publisher.topic("vehicle_status")
    assert [json.loads(json.dumps(one.value)) for one in found] == [reports[0], reports[1] | {"level": "1.5"}]
    assert {one.key for one in found} == {reports[0]["vehicle_id"]}
    assert all(one.headers == [("format", b"1")] for one in found)
    assert publisher.published("objects_detection_events") == values(event(0), event(1))
    assert not (publisher.folder / "data" / "postgres").exists()
    assert " stopped loaded=2 duplicate=0 failed=0 waiting=0 rows=6 rejected=0" in publisher.log()


def test_a_folder_whose_files_went_elsewhere_is_refused(publisher: PublisherDaemon, broker: Broker) -> None:
    publisher.start()
    assert publisher.stop() == 0
    other = PublisherDaemon(publisher.folder, broker, unique("other"))
    done = other.command("publish", "--once")
    assert done.returncode == 2
    assert (
        f"went into the topics {publisher.topics}.* of Kafka" in done.stderr and "--new-topics" in done.stderr
    )
    assert other.command("publish", "--once", "--new-topics").returncode == 0
    loading = PublisherDaemon(publisher.folder, broker, unique("other")).command("--once")
    assert loading.returncode == 2 and f"went into the topics {other.topics}.* of Kafka" in loading.stderr


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"KAFKA_NO_SUCH_PROPERTY": 1}, "No such configuration property: KAFKA_NO_SUCH_PROPERTY"),
        ({"KAFKA_BOOTSTRAP_SERVERS": ""}, "KAFKA_BOOTSTRAP_SERVERS is not set"),
    ],
    ids=["a property that the client does not know", "no address"],
)
def test_wrong_settings_are_one_sentence(
    publisher: PublisherDaemon, settings: dict[str, object], complaint: str
) -> None:
    publisher.set(**settings)
    done = publisher.command("publish", "--once")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert complaint in done.stderr


def test_ctrl_c_stops_it(publisher: PublisherDaemon) -> None:
    publisher.start()
    publisher.drop(f"{S}1.json", content(1, 10))
    publisher.until_empty()
    assert publisher.stop(signal.SIGINT) == 0
    assert publisher.published() == values(*file_of(1, 10))


def test_at_a_terminal_it_says_published_where_the_daemon_says_loaded(publisher: PublisherDaemon) -> None:
    publisher.incoming.mkdir()
    with at_terminal(publisher, "publish") as person:
        person.until_shown("Kafka ok", 60)
        publisher.drop(f"{S}1.json", content(1, 10))
        person.until_shown("published vehicles_status_1.json: 10 records")
        publisher.drop(f"{S}2.json", content(1, 10))
        person.until_shown("duplicate vehicles_status_2.json: its bytes are published already")
        person.until_shown("total     1 file   10 records   1 duplicate file")
        person.type("\x03")
        person.until_prompt()
        shown = person.text()
    assert ": 1 file published, 10 records, 1 duplicate file\n" in shown
    assert "loaded" not in shown


def test_without_a_broker_it_waits_and_says_so(publisher: PublisherDaemon) -> None:
    publisher.set(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    publisher.start(wait=False)
    until(lambda: " waiting for Kafka reason=" in publisher.log(), 30, "it waits")
    assert publisher.stop() == 0
