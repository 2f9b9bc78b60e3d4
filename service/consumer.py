"""The consumer of topics: reads partitions from where the database has them, and loads in a thread."""

import gc
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from itertools import starmap
from typing import Any

from processing.errors import DatabaseUnavailable, Misconfigured, Refused, SourceUnavailable
from processing.message_batch import MOST_MESSAGES, MessageBatch
from processing.records import Kind
from processing.stream import Fenced, Position, StreamSink, TopicPartition
from processing.stream_loader import LoadedEntry, StreamLoader
from service.events import LoopTurned, Publish, Resource
from service.outage import Outage
from service.placement import Placement
from service.signals import StopSignal
from service.stream_events import (
    MessagesLoaded,
    PartitionsGivenUp,
    PartitionsRead,
    PositionsFenced,
    ReadingPaused,
    ReadingResumed,
    TopicMissing,
)
from sources.kafka_offsets import Place
from sources.topic import Subscription

#: How long nothing may come before the loop looks around.
_IDLE_SECONDS = 0.2

#: How often it looks while the database is at work.
_BUSY_SECONDS = 0.005

#: After so long without an answer of the database, the group is served while partitions are paused.
_PATIENCE_SECONDS = 5.0

#: How long a transaction that is under way may take when the program is asked to stop.
_STOP_SECONDS = 2.5

_HINT_SECONDS = 1.0

#: How often it says that it is alive.
_TURN_SECONDS = 1.0


class Consumer:
    """One member of the group. It has one batch at the database, and gathers the next one meanwhile."""

    def __init__(
        self,
        subscription: Subscription,
        placement: Placement,
        open_sink: Callable[[], StreamSink],
        kind_of_topic: Mapping[str, Kind],
        max_document_bytes: int,
        publish: Publish,
        stop: StopSignal,
    ) -> None:
        """Connects to nothing yet."""
        self._subscription = subscription
        self._placement = placement
        self._open_sink = open_sink
        self._new_batch = partial(MessageBatch, kind_of_topic, max_document_bytes)
        self._publish = publish
        self._stop = stop
        self._sink: StreamSink | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self._batch = self._new_batch()
        self._loading: MessageBatch | None = None
        self._task: Future[Any] | None = None
        self._begun_at = self._turned_at = 0.0
        self._is_lost = self._is_paused = False
        self._message_bytes = 1
        self._outages: dict[Resource, Outage] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._unhinted: dict[TopicPartition, int] = {}
        self._hinted_at = 0.0
        self._most = MOST_MESSAGES
        self._missing: set[str] = set()
        subscription.given_up = self._give_up

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """The next offset of each partition that is read; may be asked by any thread."""
        return dict(self._positions)

    def run(self) -> None:
        """Loads until it is asked to stop; raises Misconfigured where a person is needed."""
        self._subscription.open()
        answers = False
        try:
            while not self._stop.event.is_set():
                self._turn()
            answers = Resource.BROKER not in self._outages
        finally:
            self._close(kafka_answers=answers)

    def read_anew(self) -> None:
        """Reads nothing more until the database and the cluster have been asked again where to go on."""
        self._is_lost = True

    def _turn(self) -> None:
        if (now := time.monotonic()) - self._turned_at >= _TURN_SECONDS:
            self._turned_at = now
            self._publish(LoopTurned())
        if self._task is not None and self._task.done():
            self._end_task(self._task)
        if self._is_lost:
            self._is_lost = False
            self._batch = self._new_batch()
            self._positions.clear()
            self._subscription.stop_reading()
            gc.collect()  # cycles of what failed hold the messages of a batch
        if self._task is None:
            self._begin_task()
        if self._batch.is_full or self._batch.messages >= self._most:
            self._wait_for_room()
        else:
            self._take()
        self._hint()

    def _begin_task(self) -> None:
        self._begun_at = time.monotonic()
        if self._subscription.unplaced:
            if all(self._begun_at >= outage.next_try for outage in self._outages.values()):
                self._task = self._thread.submit(self._place, self._subscription.unplaced)
        elif not self._batch.is_empty:
            self._loading, self._batch = self._batch, self._new_batch()
            self._task = self._thread.submit(self._load, self._loading)

    def _place(self, places: set[Place]) -> Sequence[Position]:
        self._sink = self._sink or self._open_sink()
        return self._placement.place(self._sink, places)

    def _load(self, batch: MessageBatch) -> Sequence[LoadedEntry]:
        assert self._sink is not None
        return StreamLoader(self._sink).load(batch)

    def _end_task(self, task: Future[Any]) -> None:
        loading, self._loading, self._task = self._loading, None, None
        if self._is_paused:
            self._pause(is_on=False)
        try:
            result = task.result()
        except Fenced as why:
            self._publish(PositionsFenced(str(why)))
            self.read_anew()
        except Refused:
            if loading is None or loading.messages <= 1:
                raise  # a person has to look; until then nothing is passed over
            self._go_on_smaller(loading)
        except (DatabaseUnavailable, SourceUnavailable) as error:
            self._postpone(error)
            if loading is not None:
                self._go_on_smaller(loading)
        else:
            self._end_outage(Resource.DATABASE)
            if loading is None:
                self._end_outage(Resource.BROKER)
                self._read(result)
            else:
                self._most = min(MOST_MESSAGES, 2 * self._most)
                self._note_loaded(loading, result)

    def _go_on_smaller(self, loading: MessageBatch) -> None:
        """Reads again, fewer at once: one of the messages may be the cause."""
        self._most = max(1, loading.messages // 2)
        self.read_anew()

    def _read(self, positions: Sequence[Position]) -> None:
        self._subscription.read(positions)
        read = {
            at.partition: at.next_offset for at in positions if at.partition in self._subscription.reading
        }
        self._positions |= read
        if read:
            self._publish(PartitionsRead([f"{place}@{offset}" for place, offset in sorted(read.items())]))

    def _note_loaded(self, loading: MessageBatch, entries: Sequence[LoadedEntry]) -> None:
        self._unhinted |= {move.partition: move.next_offset for move in loading.moves}
        seconds = time.monotonic() - self._begun_at
        self._publish(MessagesLoaded(entries, loading.messages, loading.bytes, seconds))

    def _take(self) -> None:
        """Takes messages into the batch, no more than there is room for if they are like the last ones."""
        room = min(self._most - self._batch.messages, 1 + self._batch.room // self._message_bytes)
        polled = self._subscription.poll(room, _BUSY_SECONDS if self._task is not None else _IDLE_SECONDS)
        if polled.beyond:
            self.read_anew()
        for topic in polled.missing - self._missing:
            self._publish(TopicMissing(topic))
        self._missing |= polled.missing
        if self._subscription.trouble:
            trouble, self._subscription.trouble = self._subscription.trouble, ""
            self._postpone(SourceUnavailable(trouble))
        if self._is_lost:
            return
        batch, positions, before = self._batch, self._positions, self._batch.bytes
        for run in polled.runs:
            place = run[0].partition
            batch.add(run, positions[place])
            positions[place] = run[-1].offset + 1
        for end in polled.ends:
            if end.next_offset > positions.get(end.partition, end.next_offset):
                batch.reach(end.partition, positions[end.partition], end.next_offset)
                positions[end.partition] = end.next_offset
        if polled.runs:
            self._message_bytes = max(1, (batch.bytes - before) // sum(map(len, polled.runs)))

    def _wait_for_room(self) -> None:
        """Waits for the database; if that takes long, serves the group while no partition is read."""
        if self._task is None:
            return
        if time.monotonic() - self._begun_at < _PATIENCE_SECONDS:
            wait([self._task], _IDLE_SECONDS)
            return
        if not self._is_paused:
            self._pause(is_on=True)
        self._take()

    def _pause(self, *, is_on: bool) -> None:
        self._is_paused = is_on
        self._subscription.pause(is_on=is_on)
        seconds = round(time.monotonic() - self._begun_at, 1)
        self._publish(ReadingPaused(seconds) if is_on else ReadingResumed(seconds))

    def _give_up(self, places: Collection[Place], *, is_lost: bool) -> None:
        """Loads what was taken of partitions that others get now; what was lost, others may have loaded."""
        if not (is_lost or self._stop.event.is_set()):
            self._finish()
        given_up = [place for place in self._positions if (place.topic, place.partition) in places]
        for place in given_up:
            del self._positions[place]
            self._unhinted.pop(place, None)
        if self._task is not None or not self._batch.is_empty:
            self.read_anew()
        self._publish(PartitionsGivenUp(sorted(map(str, given_up)), is_lost))

    def _finish(self) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for _ in range(2):  # what is under way, and what was gathered meanwhile
            if self._task is not None:
                wait([self._task], max(0.0, deadline - time.monotonic()))
                if not self._task.done():
                    return
                self._end_task(self._task)
            if self._is_lost or self._batch.is_empty:
                break
            self._loading, self._batch = self._batch, self._new_batch()
            self._task = self._thread.submit(self._load, self._loading)
        self._hint(at_once=True)

    def _postpone(self, error: DatabaseUnavailable | SourceUnavailable) -> None:
        resource = Resource.BROKER if isinstance(error, SourceUnavailable) else Resource.DATABASE
        outage = self._outages.setdefault(resource, Outage(resource, self._publish))
        outage.postpone(error, once=False)
        # Without the broker the database may be at work: for a batch, or for where to go on.
        if resource is Resource.DATABASE and self._sink is not None:
            self._sink.close()
            self._sink = None
        self.read_anew()

    def _end_outage(self, resource: Resource) -> None:
        outage = self._outages.pop(resource, None)
        if outage is not None:
            outage.end()

    def _hint(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._unhinted and (at_once or now - self._hinted_at >= _HINT_SECONDS):
            self._hinted_at = now
            hints, self._unhinted = self._unhinted, {}
            self._subscription.hint(starmap(Position, hints.items()))

    def _close(self, *, kafka_answers: bool) -> None:
        """Lets a transaction end that is under way, for a while, and leaves the group."""
        task, loading = self._task, self._loading
        if task is not None:
            if not wait([task], _STOP_SECONDS).done and self._sink is not None:
                self._sink.interrupt()
            with suppress(Fenced, DatabaseUnavailable, SourceUnavailable, Misconfigured, TimeoutError):
                result = task.result(_STOP_SECONDS)
                if loading is not None:
                    self._note_loaded(loading, result)
        self._task, self._is_lost = None, True  # nothing more is loaded while partitions are given up
        if not kafka_answers:
            self._unhinted.clear()  # else leaving would wait for what becomes of the hint
        self._hint(at_once=True)
        self._subscription.close()
        if self._sink is not None and (task is None or task.done()):
            self._sink.close()
        self._thread.shutdown(wait=False)
