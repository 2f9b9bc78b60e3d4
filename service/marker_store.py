"""The place of the marker by the settings: the watch folder, or the bucket."""

from config import Settings
from service.kept_client import KeptClient
from service.marker import OF_TOPICS, FolderStore, Marker, Store


def store_of(settings: Settings, client: KeptClient) -> Store:
    """Returns where the marker is; only a bucket needs the client."""
    if settings.bucket is None:
        return FolderStore(settings.folder)
    from service.bucket_marker import BucketStore

    return BucketStore(client.get(), settings.bucket)


def marker_of_topics(settings: Settings, client: KeptClient) -> Marker | None:
    """Returns the marker if the files are published; None if a database gets them, or nothing yet."""
    marker = store_of(settings, client).read()
    return marker if marker is not None and marker.ledger.startswith(OF_TOPICS) else None
