"""The client of a bucket, kept by whoever asks again and again: to make one takes a tenth of a second."""

from threading import Lock
from typing import Any


class KeptClient:
    """The client of one S3 server; several threads may use it."""

    def __init__(self, endpoint_url: str | None) -> None:
        """Makes no client yet."""
        self._endpoint_url = endpoint_url
        self._making = Lock()
        self._client: Any = None

    def get(self) -> Any:
        """Returns the client, made when it is first asked for; raises Misconfigured."""
        with self._making:
            if self._client is None:
                from sources.s3_client import make_client  # only a bucket needs it

                self._client = make_client(self._endpoint_url)
            return self._client

    def close(self) -> None:
        """Closes the connections of the client, if there is one."""
        with self._making:
            if self._client is not None:
                self._client.close()
                self._client = None
