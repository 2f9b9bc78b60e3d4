"""The part of the present that is about Kafka: how far each topic is loaded, and what needs a person."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from monitor.dashboard import markup, numbers
from monitor.dashboard.markup import Column, Notice
from processing.counted import counted
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
