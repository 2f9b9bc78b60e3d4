"""A producer of messages of every sort, whose rows can be identified, and the journal of what it sent."""

import gzip
import random
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from typing import Any

import zstandard
from confluent_kafka import KafkaError, KafkaException
from msgspec import Raw, json

from tests.chaos.producers import CANARY, DETECTIONS, Dropped, Journal
from tests.kafka import Broker, put

#: Larger series of rows go as a document: a message for each would only cost time.
_MOST_SINGLE = 600

#: The shares of what is sent. The rest are documents.
_SINGLE, _BAD, _ABORTED = 0.7, 0.06, 0.01

#: The share of the messages that come twice, and of the documents that have a bad record.
_REPEATED, _FLAWED = 0.05, 0.1

#: A transaction of a foreign producer that nobody ends hides messages for no longer than this.
_TRANSACTION_SECONDS = 5

_FLAW = b',{"vehicle_id":"%b","no":"record"}]}' % CANARY.encode()

_PACKINGS: tuple[Callable[[bytes], bytes], ...] = (bytes, bytes, gzip.compress, zstandard.compress)

_ELEMENTS = json.Decoder(dict[str, list[Raw]])

#: The topic, the partition and the offset of a message.
Place = tuple[str, int, int]


class MessageSender:
    """Sends series of rows, each row once, as single records or as one document; bad ones between them."""

    def __init__(self, broker: Broker, topics: dict[str, str], partitions: int, rng: random.Random) -> None:
        """Takes the topic of each kind."""
        self.journal = Journal()
        self.partitions = partitions
        self.messages = 0
        self.repeated_rows = 0
        self.repeated_documents = 0
        self.rejected: list[Place] = []
        self.undelivered: list[str] = []
        self.pause = 0.05
        self._broker = broker
        self._topics = topics
        self._rng = rng
        # Each message once, however long the broker is away.
        self._producer = broker.producer(enable_idempotence=True, message_timeout_ms=0)

    def send_on(self, stop: Event) -> None:
        """Sends one series after the other until it is told to stop."""
        while not stop.wait(self.pause):
            self.send()

    def send(self) -> None:
        """Sends one series, or something that is no series."""
        chance = self._rng.random()
        if chance < _ABORTED:
            self._send_aborted()
        elif chance < _ABORTED + _BAD:
            self._send_bad()
        else:
            file = self.journal.draw(self._rng)
            self.journal.add(file)
            is_single = file.rows <= _MOST_SINGLE and chance < _ABORTED + _BAD + _SINGLE
            (self._send_records if is_single else self._send_document)(file)

    def flush(self) -> None:
        """Waits until the broker has all that was sent."""
        left = self._producer.flush(120)
        if left:
            self.undelivered.append(f"{left} messages were not delivered in time")

    def _send_records(self, file: Dropped) -> None:
        (elements,) = _ELEMENTS.decode(file.content()).values()
        for element in elements:
            value = bytes(element)
            self._put(self._topics[file.kind], self._packed(value) if self._rng.random() < 0.1 else value)
            if self._rng.random() < _REPEATED:
                self._put(self._topics[file.kind], value)
                self.repeated_rows += len(json.decode(value).get("detections", "1"))

    def _send_document(self, file: Dropped) -> None:
        content = file.content()
        is_flawed = self._rng.random() < _FLAWED
        value = self._packed(content[:-2] + _FLAW if is_flawed else content)
        self._put(self._any_topic(), value, is_rejected=is_flawed)
        if not is_flawed and self._rng.random() < _REPEATED:
            self._put(self._any_topic(), value)
            self.repeated_documents += 1

    def _send_bad(self) -> None:
        """Sends a message that becomes one rejected record."""
        report = json.encode({"vehicle_id": CANARY, "report_time": "yesterday", "status": "driving"})
        bad = (None, b"", b"\xff", b"null", b"{", b"[1]", gzip.compress(report)[:-3], b"[" * 20_000, report)
        self._put(self._any_topic(), self._rng.choice(bad), is_rejected=True)

    def _send_aborted(self) -> None:
        """Sends what nobody may ever see: its transaction is aborted."""
        ghost = Dropped(9, self._rng.randrange(10**9), self._rng.choice([*self._topics]), 30)
        with suppress(KafkaException):  # the broker is away, and aborts it later
            producer = self._broker.producer(
                transactional_id=f"foreign-{self._topics[DETECTIONS]}",
                transaction_timeout_ms=1000 * _TRANSACTION_SECONDS,
            )
            producer.init_transactions(_TRANSACTION_SECONDS)
            producer.begin_transaction()
            (elements,) = _ELEMENTS.decode(ghost.content()).values()
            for element in elements:
                producer.produce(self._topics[ghost.kind], bytes(element), partition=self._any_partition())
            producer.flush(_TRANSACTION_SECONDS)
            producer.abort_transaction(_TRANSACTION_SECONDS)

    def _put(self, topic: str, value: bytes | None, *, is_rejected: bool = False) -> None:
        self.messages += 1
        note: Callable[[KafkaError | None, Any], None] = self._note_rejected if is_rejected else self._note
        while True:
            try:
                put(self._producer, topic, value, self._any_partition(), on_delivery=note)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._UNKNOWN_PARTITION:
                    raise
                time.sleep(0.1)  # it is new, and the producer has not heard of it yet
            else:
                return

    def _note(self, error: KafkaError | None, _: Any) -> None:
        if error is not None:
            self.undelivered.append(error.str())

    def _note_rejected(self, error: KafkaError | None, message: Any) -> None:
        self._note(error, message)
        if error is None:
            self.rejected.append((message.topic(), message.partition(), message.offset()))

    def _packed(self, value: bytes) -> bytes:
        return self._rng.choice(_PACKINGS)(value)

    def _any_topic(self) -> str:
        return self._rng.choice([*self._topics.values()])

    def _any_partition(self) -> int:
        return self._rng.randrange(self.partitions)
