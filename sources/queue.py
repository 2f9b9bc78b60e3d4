"""A queue (SQS) to which a bucket sends its notifications; a message is deleted as soon as it is there."""

from typing import Any, Self

from processing.errors import SourceUnavailable
from sources.s3_client import ClientError, code_of, make_queue_client, translated

_MOST_MESSAGES = 10


class Queue:
    """The messages of one queue."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    @classmethod
    def at(cls, url: str) -> Self:
        return cls(make_queue_client(url), url)

    def receive(self, seconds: int) -> list[str]:
        """Waits so long for messages, and returns their texts; raises SourceUnavailable or Misconfigured.

        They are deleted before anybody reads them: whatever they say, the listing says, too.
        """
        limits = {"MaxNumberOfMessages": _MOST_MESSAGES, "WaitTimeSeconds": seconds}
        try:
            with translated():
                answer = self._client.receive_message(QueueUrl=self._url, **limits)
                messages = answer.get("Messages", [])
                if messages:
                    receipts = [
                        {"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]}
                        for n, message in enumerate(messages)
                    ]
                    self._client.delete_message_batch(QueueUrl=self._url, Entries=receipts)
        except ClientError as error:
            raise SourceUnavailable(f"the server answers {code_of(error)}") from None
        return [message["Body"] for message in messages]
