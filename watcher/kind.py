"""The ways to notice new files, by the names that the settings have for them."""

from enum import StrEnum


class ObserverKind(StrEnum):
    """The ways to notice new files between two scans."""

    NATIVE = "native"
    POLLING = "polling"
    OFF = "off"
