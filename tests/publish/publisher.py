"""python main.py publish as its user starts it, and what its readers have of it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.kafka import Broker
from tests.support import Daemon, report, statuses
from tests.topics import Found, is_blocked, read_topic

S = "vehicles_status_"


class PublisherDaemon(Daemon):
    """A publisher in a folder of its own, without a database."""

    def __init__(self, folder: Path, broker: Broker, topics: str, **settings: object) -> None:
        super().__init__(
            folder,
            None,
            KAFKA_BOOTSTRAP_SERVERS=broker.servers,
            KAFKA_TOPIC_PREFIX=topics,
            DATA_FOLDER=folder / "data",
            **settings,
        )
        self.broker = broker
        self.topics = topics

    def start(self, *arguments: str, wait: bool = True) -> "PublisherDaemon":
        super().start("publish", *arguments, wait=wait)
        return self

    def topic(self, name: str, *, is_committed: bool = True) -> list[Found]:
        return read_topic(self.broker, f"{self.topics}.{name}", is_committed=is_committed)

    def published(self, name: str = "vehicle_status") -> Counter[str]:
        """How often each value is there for readers of committed messages."""
        return Counter(json.dumps(found.value, sort_keys=True) for found in self.topic(name))

    def is_blocked(self) -> bool:
        """Whether an open transaction hides anything in any of its topics."""
        names = [
            name
            for name in self.broker.admin.list_topics(timeout=20).topics
            if name.startswith(f"{self.topics}.")
        ]
        return any(is_blocked(self.broker, name) for name in names)

    def ledger(self) -> dict[str, Any]:
        """The last entry of each file, by its name."""
        found = [one for one in self.topic("ledger") if len(one.key) == 64]
        return {one.value["name"]: one.value for one in found}


def values(*reports: dict[str, Any]) -> Counter[str]:
    return Counter(json.dumps(one, sort_keys=True) for one in reports)


def file_of(number: int, count: int, **more: Any) -> list[dict[str, Any]]:
    """The reports of one file: no other has the same."""
    return [
        report(part % 3600, vehicle=f"car-{part % 7}", file=number, part=part, **more)
        for part in range(count)
    ]


def content(number: int, count: int, **more: Any) -> bytes:
    return statuses(*file_of(number, count, **more))
