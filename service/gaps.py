"""Says which messages of a partition are missing."""

from processing.stream import Gap, Position, TopicPartition

_MADE_AGAIN = "the topic was deleted and made again"


def find_gap(place: TopicPartition, stored: int, first: int, last: int) -> Gap | None:
    """Returns what is missing at a stored position in a log with these ends."""
    if stored < first:
        return Gap(place, stored, first, "the log begins later")
    return Gap(place, stored, last, "the log ends earlier") if stored > last else None


def gone_gap(position: Position) -> Gap:
    """Returns the gap of a partition whose topic was deleted."""
    return Gap(position.partition, position.next_offset, None, _MADE_AGAIN)


def describe(gap: Gap) -> str:
    """Returns a clause that says what is missing."""
    return _describe_gone(gap) if gap.resume_offset is None else _describe_missing(gap, gap.resume_offset)


def _describe_gone(gap: Gap) -> str:
    topic = gap.partition
    return (
        f"the topic {topic.topic} was deleted and made again (id {topic.topic_id} is gone); what partition "
        f"{topic.partition} had from offset {gap.first_offset} on was not loaded"
    )


def _describe_missing(gap: Gap, resume: int) -> str:
    place = gap.partition
    if resume > gap.first_offset:
        return (
            f"partition {place.partition} of {place.topic} lacks the offsets {gap.first_offset} to "
            f"{resume - 1}, which were not loaded yet"
        )
    return (
        f"partition {place.partition} of {place.topic} ends at offset {resume}, though messages up to "
        f"{gap.first_offset} are loaded"
    )
