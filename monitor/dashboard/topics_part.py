"""The part of the present that is about Kafka: what is loaded of topics, and what is published into them."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from monitor.dashboard import markup, numbers
from monitor.dashboard.markup import Column, Notice
from processing.counted import counted
from service.published import Published
from service.topic_state import PartitionState, TopicState

#: Partitions that are shown by themselves, the furthest behind first.
_SHOWN = 10


def notices(state: TopicState) -> list[Notice]:
    """Says what needs a person."""
    found = []
    missing = [one.missing for one in state.partitions if one.missing]
    if missing:
        text = f"Messages are missing: {missing[0]}. To note that, and to go on behind it:"
        found.append(Notice(text, "bad", "python main.py consume --accept-gap"))
    elif state.consumers is not None and not state.consumers:
        text = f"No consumer is in the group {state.group}. Start one:"
        found.append(Notice(text, "warn", "python main.py consume"))
    return found


def topics(state: TopicState) -> str:
    """Returns the topics, below them the partitions that are behind, and who consumes."""
    titles = ("partitions", "position", "to load", "behind an open transaction", "moved")
    columns = [Column("topic", "name"), *(Column(title, "number") for title in titles)]
    of_topics = groupby(state.partitions, lambda one: one.topic)
    shown = markup.table(columns, [_row(topic, list(found)) for topic, found in of_topics])
    behind = [one for one in state.partitions if one.missing or one.lag or one.open]
    if behind:
        behind.sort(key=lambda one: (not one.missing, not one.is_blocked, -(one.lag or 0)))
        columns[0] = Column("partitions that are behind", "name")
        shown += markup.table(columns, [_row(str(one), [one]) for one in behind[:_SHOWN]])
    return markup.notices(*_about_group(state)) + shown


def _row(name: str, partitions: Sequence[PartitionState]) -> tuple[str, ...]:
    lags = [one.lag for one in partitions if one.lag is not None]
    return (
        name,
        numbers.count(len(partitions)),
        numbers.count(sum(one.next_offset for one in partitions)),
        numbers.count(sum(lags)) if lags else numbers.NONE,
        numbers.count(sum(one.open for one in partitions)) if lags else numbers.NONE,
        numbers.time(max(one.moved_at for one in partitions)),
    )


def _about_group(state: TopicState) -> Iterator[Notice]:
    if state.trouble:
        yield Notice(f"The messages that are left are not known: {state.trouble}.", "warn")
    elif state.consumers:
        idle = sum(not one.partitions for one in state.consumers)
        reserve = f", {idle} of them in reserve, without partitions" if idle else ""
        count = counted(len(state.consumers), "consumer")
        yield Notice(f"{count} in the group {state.group}{reserve}.", "good")
    for one in state.gaps[:1]:
        accepted = f"accepted by {one.accepted_by} at {numbers.time(one.accepted_at)}"
        yield Notice(f"The last gap: {one.gap.partition}, {one.gap.reason}; {accepted}.")


def about_published(found: Published) -> list[Notice]:
    """Says what needs a person."""
    notices = []
    if found.trouble:
        notices.append(Notice(f"No answer of Kafka: {found.trouble}.", "bad"))
    if found.unfixed:
        text = f"{counted(len(found.unfixed), 'file')} in the failed folder: fix and drop again, or remove."
        notices.append(Notice(text, "warn"))
    return notices


def published(found: Published) -> str:
    """Returns what the ledger says, the size of each topic, and the last files."""
    if found.ledger is None:
        return markup.notices(Notice(f"What was published into {found.place} is not known now.", "warn"))
    ledger = found.ledger
    parts = f", {ledger.files_in_parts:,} in part" if ledger.files_in_parts else ""
    files = f"{counted(ledger.published_files, 'file')} published{parts}, {ledger.failed_files:,} failed"
    records = f"{ledger.read:,} records = {ledger.published:,} published + {ledger.rejected:,} rejected"
    topics = markup.table(
        [Column("topic", "name"), Column("partitions", "number"), Column("messages, at most", "number")],
        [(one.topic, numbers.count(one.partitions), numbers.count(one.messages)) for one in found.topics],
    )
    titles = ("read", "published", "rejected")
    files_table = markup.table(
        [Column("UTC"), Column("file", "name"), Column("outcome"), *(Column(t, "number") for t in titles)],
        [
            (
                numbers.time(one.committed_at),
                one.name,
                one.reason or one.state,
                *map(numbers.count, (one.read, one.published, one.rejected)),
            )
            for one in (*ledger.last_files, *ledger.last_failures)
        ],
    )
    return markup.notices(Notice(f"{files}. {records}.")) + topics + files_table
