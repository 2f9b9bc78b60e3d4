"""Copies a large object within a bucket, part by part: no request takes long, however large the object is."""

from typing import Any

from msgspec import Struct

from processing.errors import NotReady
from sources.local_file import Beat


class _Beats(Struct, frozen=True):
    """A subscriber to the progress of a copy."""

    beat: Beat

    def on_progress(self, **_: object) -> None:
        self.beat()


def copy_in_parts(
    client: Any, source: dict[str, str], key: str, condition: dict[str, str], part_bytes: int, beat: Beat
) -> None:
    """Copies the object that meets the condition; raises NotReady if another one takes its place."""
    from s3transfer.exceptions import S3CopyFailedError  # only this needs it, and it takes long to import
    from s3transfer.manager import TransferConfig, TransferManager

    config = TransferConfig(multipart_threshold=part_bytes, multipart_chunksize=part_bytes)
    with TransferManager(client, config) as manager:
        copy = manager.copy(source, source["Bucket"], key, condition, [_Beats(beat)])
        try:
            copy.result()
        except S3CopyFailedError:
            raise NotReady("another object took its name") from None
