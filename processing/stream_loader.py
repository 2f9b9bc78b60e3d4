"""Loads a batch of messages: rows, rejects, ledger entries and positions commit in one transaction."""

from datetime import UTC, datetime

from msgspec import Struct

from processing.errors import LockTimeout, TryAgain
from processing.message_batch import DocumentRun, MessageBatch, Records
from processing.sink import Counts, Delivery, FirstReject
from processing.source import Origin
from processing.stream import Messages, StreamSink, StreamTransaction

#: Tries of a transaction that loses races.
_TRIES = 5


class LoadedEntry(Struct, frozen=True):
    """An entry of the ledger that a batch has made: records of a topic, or one document."""

    name: str
    kind: str
    counts: Counts
    first_reject: FirstReject | None


class StreamLoader:
    """Loads batches of messages into one sink."""

    def __init__(self, sink: StreamSink) -> None:
        self._sink = sink

    def load(self, batch: MessageBatch) -> list[LoadedEntry]:
        """Loads all of the batch or nothing.

        Raises Fenced if another consumer has moved one of the positions; DatabaseUnavailable, Refused and
        Misconfigured: then all is as it was, or, if the connection broke at COMMIT, as it should be.
        """
        batch.end()
        started_at = datetime.now(UTC)
        for _ in range(_TRIES - 1):
            try:
                return self._load(batch, started_at)
            except LockTimeout:
                raise
            except TryAgain:
                continue
        return self._load(batch, started_at)

    def _load(self, batch: MessageBatch, started_at: datetime) -> list[LoadedEntry]:
        with self._sink.transaction() as transaction:
            digests = [run.document.sha256 for run in batch.runs if isinstance(run, DocumentRun)]
            loaded = transaction.loaded(digests)
            begun: list[tuple[str, str]] = []
            for run in batch.runs:
                if isinstance(run, Records):
                    begun.append(_write_records(transaction, run, started_at))
                elif entry := _write_document(transaction, run, started_at, loaded):
                    begun.append(entry)
            transaction.move(batch.moves)
            counts = transaction.commit()
            rejects = transaction.first_rejects()
        found = zip(begun, counts, rejects, strict=True)
        return [LoadedEntry(*names, counted, first) for names, counted, first in found]


def _write_records(transaction: StreamTransaction, run: Records, started_at: datetime) -> tuple[str, str]:
    origin = Origin(f"kafka://{run.topic}", run.topic_id)
    run.messages.begin()
    transaction.begin_messages(
        Delivery(None, run.topic, run.size, started_at, origin), run.kind, run.messages
    )
    for parsed in run.parsed:
        transaction.write(parsed)
    return run.topic, run.kind.name


def _write_document(
    transaction: StreamTransaction, run: DocumentRun, started_at: datetime, loaded: set[bytes]
) -> tuple[str, str] | None:
    """Writes a document as the file that it could be; None if its bytes are loaded already."""
    message, document = run
    place, digest = message.partition, document.sha256
    name = f"{place.topic}/{place.partition}/{message.offset}"
    delivery = Delivery(digest, name, document.size, started_at, Origin(f"kafka://{name}", place.topic_id))
    if digest in loaded:
        transaction.redelivered(delivery)
        return None
    loaded.add(digest)
    messages = Messages(keeps_values=False)
    messages.add([message], 0)
    transaction.begin_messages(delivery, document.kind, messages)
    for parsed in document.parsed():
        transaction.write(parsed)
    if document.extra:
        transaction.keep(document.extra)
    return name, document.kind.name
