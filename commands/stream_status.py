"""Shows how far topics are loaded, which consumers load them, and what needs a person."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from config import Settings
from db.stream import AcceptedGap
from processing.counted import counted
from service.topic_state import PartitionState, TopicState

_SHOWN = 5


def facts(state: TopicState) -> Iterator[tuple[str, str]]:
    """Returns a line for each topic, and one for the group."""
    for topic, partitions in groupby(state.partitions, lambda one: one.topic):
        yield "topic", f"{topic}, {_sum_up(list(partitions))}"
    if state.trouble:
        yield "Kafka", f"lag not known: {state.trouble}"
    elif state.consumers is not None:
        shown = [f"{one.host} ({counted(one.partitions, 'partition')})" for one in state.consumers[:_SHOWN]]
        others = ["…"] if len(state.consumers) > _SHOWN else []
        count = counted(len(state.consumers), "consumer")
        yield "group", f"{state.group}, {count}" + (f": {', '.join(shown + others)}" if shown else "")


def _sum_up(partitions: Sequence[PartitionState]) -> str:
    count = counted(len(partitions), "partition")
    lags = [one.lag for one in partitions if one.lag is not None]
    lag = f", {counted(sum(lags), 'message')} to load" if lags else ""
    opened = sum(one.open for one in partitions)
    behind = f", {opened:,} more behind an open transaction" if opened else ""
    moved_at = max(one.moved_at for one in partitions)
    return f"{count}{lag}{behind}, moved {moved_at:%Y-%m-%d %H:%M:%S} UTC"


def sections(state: TopicState) -> Iterator[tuple[str, list[str]]]:
    """Returns the partitions that are behind, the worst first, and the gaps that were accepted."""
    behind = [one for one in state.partitions if one.missing or one.lag or one.open]
    behind.sort(key=lambda one: (not one.missing, not one.is_blocked, -(one.lag or 0)))
    yield "partitions that are behind, UTC", [_formatted(one) for one in behind[:_SHOWN]]
    yield "accepted gaps, UTC", [_formatted_gap(one) for one in state.gaps]


def _formatted(one: PartitionState) -> str:
    if one.missing:
        what = one.missing
    elif one.is_blocked:
        what = f"blocked by an open transaction, {counted(one.open, 'message')} behind it"
    else:
        what = f"{counted(one.lag or 0, 'message')} to load"
    return f"{one.moved_at:%Y-%m-%d %H:%M:%S}  {one}  at offset {one.next_offset}: {what}"


def _formatted_gap(one: AcceptedGap) -> str:
    gap = one.gap
    to = "its end" if gap.resume_offset is None else f"{gap.resume_offset}"
    where = f"{gap.partition}  offset {gap.first_offset} to {to}"
    return f"{one.accepted_at:%Y-%m-%d %H:%M:%S}  {where}  {gap.reason}, accepted by {one.accepted_by}"


def needs(settings: Settings, state: TopicState) -> Iterator[str]:
    """Returns what needs a person."""
    missing = [one.missing for one in state.partitions if one.missing]
    if missing:
        others = f", and so {counted(len(missing) - 1, 'more partition')}" if len(missing) > 1 else ""
        yield f"messages are missing: {missing[0]}{others}"
    if state.consumers is not None and not state.consumers:
        yield f"no consumer is in the group {state.group}"
    if state.trouble and settings.kafka_bootstrap_servers is not None:
        yield "Kafka can't be asked"


def steps(settings: Settings, state: TopicState) -> Iterator[tuple[str, str]]:
    """Returns commands, and what they are for."""
    if any(one.missing for one in state.partitions):
        yield "python main.py consume --accept-gap", "notes what is missing, and goes on behind it"
    elif state.consumers is not None and not state.consumers:
        yield "python main.py consume", "starts a consumer"
    blocked = [one for one in state.partitions if one.is_blocked]
    if blocked:
        place = f"--topic {blocked[0].topic} --partition {blocked[0].partition}"
        servers = f"--bootstrap-server {settings.kafka_bootstrap_servers}"
        yield f"kafka-transactions.sh {servers} describe-producers {place}", "shows whose transaction is open"
