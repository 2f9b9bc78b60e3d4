"""The marker of a bucket: an object that names the ledger that the objects beside it go into."""

from typing import Any

from msgspec import DecodeError, Struct, json

from service.marker import NAME, Marker, unreadable
from sources.policy import BucketPlace
from sources.s3_client import ClientError, code_of, status_of, translated


class BucketStore(Struct, frozen=True):
    """The marker at the beginning of a place in a bucket."""

    client: Any
    place: BucketPlace

    def read(self) -> Marker | None:
        """Raises SourceUnavailable, too."""
        try:
            with translated():
                answer = self.client.get_object(Bucket=self.place.bucket, Key=self.place.prefix + NAME)
                return json.decode(answer["Body"].read(), type=Marker)
        except ClientError as error:
            if status_of(error) == 404:
                return None
            raise unreadable(f"{self.place}{NAME}", code_of(error)) from None
        except DecodeError as error:
            raise unreadable(f"{self.place}{NAME}", str(error)) from None

    def write(self, marker: Marker) -> None:
        """Raises SourceUnavailable, too."""
        key = self.place.prefix + NAME
        try:
            with translated():
                self.client.put_object(Bucket=self.place.bucket, Key=key, Body=json.encode(marker))
        except ClientError as error:
            raise OSError(f"the server answers {code_of(error)}") from None
