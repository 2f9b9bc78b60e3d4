"""The part of the page of the present that is about Kafka topics."""

from datetime import UTC, datetime

from msgspec.structs import replace

from db.stream import AcceptedGap
from monitor.dashboard import topics_part
from processing.stream import Gap, TopicPartition
from service.published import Published
from service.topic_state import PartitionState, TopicState
from sinks.kafka_overview import LedgerEntry, LedgerTotals, TopicSize
from sources.topic_logs import Member

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
FINE = PartitionState("t", 0, 40, NOW, lag=0)
STATE = TopicState([FINE, replace(FINE, partition=1, lag=7)], [], "g", [Member("h", 2), Member("i", 0)])


def test_a_topic_has_a_line_and_so_has_each_partition_that_is_behind() -> None:
    html = topics_part.topics(STATE)
    assert "2 consumers in the group g, 1 of them in reserve, without partitions." in html
    assert ">t<" in html and ">80<" in html and ">7<" in html
    assert ">t/1<" in html and ">t/0<" not in html
    assert topics_part.notices(STATE) == []


def test_missing_messages_and_a_group_without_consumers_need_a_person() -> None:
    missing = replace(STATE, partitions=[replace(FINE, missing="it lacks <some>")], consumers=[])
    (notice,) = topics_part.notices(missing)
    assert notice.command.endswith("--accept-gap") and "it lacks <some>" in notice.text
    (notice,) = topics_part.notices(replace(STATE, consumers=[]))
    assert notice.command == "python main.py consume"


def test_without_kafka_the_positions_are_shown_and_why_no_more() -> None:
    unknown = TopicState([replace(FINE, lag=None)], [], "g", trouble="it is <away>")
    html = topics_part.topics(unknown)
    assert "are not known: it is &lt;away&gt;." in html and ">40<" in html
    assert topics_part.notices(unknown) == []


def test_the_last_gap_is_named() -> None:
    gap = AcceptedGap(Gap(TopicPartition("t", "id", 0), 5, 9, "the log begins later"), NOW, "ann@host")
    assert "t/0, the log begins later; accepted by ann@host at " in topics_part.topics(
        replace(STATE, gaps=[gap])
    )


def test_what_was_published_is_shown_with_its_last_files() -> None:
    file = LedgerEntry("vehicles_status_<1>.json", "published", NOW, 50, 49, 1, "")
    ledger = LedgerTotals(3, 1, 2, 150, 149, 1, [file], [])
    found = Published("the topics", [TopicSize("fleet.a", 6, 160)], ledger, ["bad.json"])
    html = topics_part.published(found)
    assert "3 files published, 1 in part, 2 failed. 150 records = 149 published + 1 rejected." in html
    assert ">fleet.a<" in html and ">160<" in html and ">vehicles_status_&lt;1&gt;.json<" in html
    (notice,) = topics_part.about_published(found)
    assert notice.text == "1 file in the failed folder: fix and drop again, or remove."
    (notice,) = topics_part.about_published(Published("the topics", trouble="refused"))
    assert notice.text == "No answer of Kafka: refused."
