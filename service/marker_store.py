"""The place of the marker by the settings: the watch folder, or the bucket."""

from config import Settings
from service.marker import FolderStore, Store


def store_of(settings: Settings) -> Store:
    """Returns where the marker is; only a bucket needs a client."""
    if settings.bucket is None:
        return FolderStore(settings.folder)
    from service.bucket_marker import BucketStore
    from sources.s3_client import make_client

    return BucketStore(make_client(settings.s3_endpoint_url), settings.bucket)
