"""The marker of a bucket: an object that names the ledger that the objects beside it go into."""

from typing import Any

from msgspec import DecodeError, Struct, json

from processing.errors import SourceUnavailable
from service.marker import MOST_BYTES, NAME, Marker, unreadable
from sources.policy import BucketPlace
from sources.s3_client import ClientError, code_of, is_of_others, status_of, translated

#: Answers to a request that was to make an object: there is one, or another request makes it just now.
_THERE_IS_ONE = (409, 412)


class BucketStore(Struct, frozen=True):
    """The marker at the beginning of a place in a bucket."""

    client: Any
    place: BucketPlace

    def read(self) -> Marker | None:
        """Raises SourceUnavailable, too."""
        try:
            with translated():
                answer = self.client.get_object(Bucket=self.place.bucket, Key=self.place.prefix + NAME)
                return json.decode(answer["Body"].read(MOST_BYTES), type=Marker)
        except ClientError as error:
            if is_of_others(error):
                raise SourceUnavailable(f"the answer is {code_of(error)}, and not one of S3") from None
            if status_of(error) == 404:
                return None
            raise unreadable(f"{self.place}{NAME}", code_of(error)) from None
        except DecodeError as error:
            raise unreadable(f"{self.place}{NAME}", str(error)) from None

    def write(self, marker: Marker) -> None:
        """Raises SourceUnavailable, too."""
        self._put(marker)

    def add(self, marker: Marker) -> None:
        """Raises SourceUnavailable, too."""
        self._put(marker, IfNoneMatch="*")

    def _put(self, marker: Marker, **condition: str) -> None:
        key, body = self.place.prefix + NAME, json.encode(marker)
        try:
            with translated():
                self.client.put_object(Bucket=self.place.bucket, Key=key, Body=body, **condition)
        except ClientError as error:
            if not condition or status_of(error) not in _THERE_IS_ONE:
                raise OSError(f"the server answers {code_of(error)}") from None
