"""A queue (SQS) to which a bucket sends its notifications; a message is deleted as soon as it is there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from msgspec import Struct

from processing.errors import SourceUnavailable
from sources.s3_client import ClientError, code_of, make_queue_client, translated

_MOST_MESSAGES = 10


class Message(Struct, frozen=True):
    """A message: its text, and what is needed to delete it."""

    text: str
    receipt: str


class Queue:
    """The messages of one queue."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    @classmethod
    def at(cls, url: str) -> Self:
        return cls(make_queue_client(url), url)

    def receive(self, seconds: int) -> list[Message]:
        """Waits so long for messages; raises SourceUnavailable or Misconfigured."""
        limits = {"MaxNumberOfMessages": _MOST_MESSAGES, "WaitTimeSeconds": seconds}
        with _answered():
            answer = self._client.receive_message(QueueUrl=self._url, **limits)
            found = answer.get("Messages", [])
            return [Message(message["Body"], message["ReceiptHandle"]) for message in found]

    def delete(self, messages: Sequence[Message]) -> None:
        """Deletes messages, whatever they say: the listing says it, too. Raises as receive() does."""
        receipts = [{"Id": str(n), "ReceiptHandle": message.receipt} for n, message in enumerate(messages)]
        if receipts:
            with _answered():
                self._client.delete_message_batch(QueueUrl=self._url, Entries=receipts)


@contextmanager
def _answered() -> Iterator[None]:
    try:
        with translated():
            yield
    except ClientError as error:
        raise SourceUnavailable(f"the server answers {code_of(error)}") from None
