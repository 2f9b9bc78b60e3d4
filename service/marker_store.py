"""The place of the marker by the settings: the watch folder, or the bucket."""

from config import Settings
from service.kept_client import KeptClient
from service.marker import OF_TOPICS, FolderStore, Marker, Store


def store_of(settings: Settings, client: KeptClient | None = None) -> Store:
    """Returns where the marker is; only a bucket needs a client, one of its own if none is kept."""
    if settings.bucket is None:
        return FolderStore(settings.folder)
    from service.bucket_marker import BucketStore

    return BucketStore((client or KeptClient(settings.s3_endpoint_url)).get(), settings.bucket)


def marker_of_topics(settings: Settings, client: KeptClient | None = None) -> Marker | None:
    """Returns the marker if the files are published; None if a database gets them, or nothing yet."""
    marker = store_of(settings, client).read()
    return marker if marker is not None and marker.ledger.startswith(OF_TOPICS) else None
