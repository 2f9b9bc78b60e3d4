"""The bucket that the demo writes to."""

from typing import Any, Self

from msgspec import Struct

from config import Settings
from processing.errors import Misconfigured
from sources.policy import BucketPlace
from sources.s3_client import ClientError, code_of, make_client, translated


class BucketTarget(Struct, frozen=True):
    """A place in a bucket, where an object is whole as soon as it is there."""

    client: Any
    at: BucketPlace

    @classmethod
    def of(cls, settings: Settings, at: BucketPlace) -> Self:
        return cls(make_client(settings.s3_endpoint_url), at)

    def __str__(self) -> str:
        return str(self.at)

    def prepare(self) -> None: ...

    def place(self, name: str, content: bytes) -> None:
        """Raises Misconfigured or SourceUnavailable."""
        try:
            with translated():
                self.client.put_object(Bucket=self.at.bucket, Key=self.at.prefix + name, Body=content)
        except ClientError as error:
            raise Misconfigured(f"can't write into {self.at}: the server answers {code_of(error)}") from None
