"""Small files dropped, rejected, fixed and replayed by chance: each record is a row, a duplicate or open."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec import json

from commands import replay, verify
from config import load_settings
from db.connection import Database
from db.sink import PostgresSink
from processing.batch import FileTask
from processing.loader import Loader
from sources.peek import PeekSource
from tests.support import detections, event, query, report, statuses

SEEDS, ROUNDS = range(3), 4
Row = tuple[Any, ...]
TABLES = {
    "vehicles_status": "SELECT vehicle_id, report_time, status FROM mobileye_data.vehicle_status_history",
    "objects_detection": "SELECT vehicle_id, detection_time, object_type, object_value "
    "FROM mobileye_data.objects_detection_events",
}


def rows_of(kind: str, element: dict[str, Any]) -> list[Row]:
    """Key and value of each row of a sound element, key and whatever else of each record of a wrong one."""
    if kind == "vehicles_status":
        return [(element["vehicle_id"], instant(element["report_time"]), element["status"])]
    time = instant(element["detection_time"])
    return [
        (element["vehicle_id"], time, one["object_type"], one["object_value"])
        for one in element["detections"]
    ]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


class World:
    """Few vehicles and times, so that most records meet another one; and what is to be there of them."""

    def __init__(self, seed: int, database: Database, folder: Path) -> None:
        self.random = Random(seed)
        self.database = database
        self.folder = folder
        self.files: dict[bytes, tuple[str, list[Row]]] = {}
        self.deleted: Counter[Row] = Counter()

    def element(self, kind: str) -> dict[str, Any]:
        pick: Any = self.random.choice
        if kind == "vehicles_status":
            return report(pick((0, 1)), pick(("driving", "parking", 5)), pick("ab"))
        types = self.random.sample(("cars", "signs"), pick((1, 1, 2)))
        return event(pick((0, 1)), *((one, pick((1, 2, "many"))) for one in types), vehicle=pick("ab"))

    def drop(self) -> None:
        kind = self.random.choice(list(TABLES))
        elements = [self.element(kind) for _ in range(self.random.choice((1, 1, 1, 3)))]
        content = (statuses if kind == "vehicles_status" else detections)(*elements)
        name = f"{kind}_{len(self.files)}.json"
        (self.folder / name).write_bytes(content)
        self.files.setdefault(content, (name, [row for one in elements for row in rows_of(kind, one)]))
        with closing(PostgresSink(self.database)) as sink:
            (outcome,) = Loader(PeekSource(str(self.folder)), sink, 2**30).load([FileTask(name)])
        assert outcome.state in ("loaded", "duplicate")

    def fix(self) -> None:
        """Takes away what some are in conflict with, gives others another text; then loads all again."""
        edits = []
        for file_id, position, kind, text in self.rejected("IS NULL"):
            chance = self.random.random()
            if chance < 0.4:
                self.delete(kind, json.decode(text))
            elif chance < 0.7:
                edits.append({"file_id": file_id, "position": position, "original": self.element(kind)})
        (self.folder / "edits").write_bytes(json.encode(edits))
        settings, lines = load_settings(), list[str]()
        replay.edited_records(settings, self.database, self.folder / "edits", lines.append)
        replay.records(settings, self.database, None, None, lines.append)

    def delete(self, kind: str, element: dict[str, Any]) -> None:
        table, time = TABLES[kind].rpartition(" ")[2], TABLES[kind].split()[2].rstrip(",")
        for row in rows_of(kind, element):
            where = f"vehicle_id = %s AND {time} = %s" + (" AND object_type = %s" if len(row) == 4 else "")
            columns = TABLES[kind].removeprefix("SELECT ").split(" FROM")[0]
            gone = query(
                self.database.url, f"DELETE FROM {table} WHERE {where} RETURNING {columns}", row[:-1]
            )
            self.deleted.update(gone)

    def rejected(self, resolved: str) -> list[Row]:
        return query(
            self.database.url,
            f"""
            SELECT file_id, position, kind, coalesce(edited, original)::text
            FROM mobileye_data.rejected_records JOIN mobileye_data.ingested_files USING (file_id)
            WHERE resolved_at {resolved}
            ORDER BY 1, 2
            """,
        )

    def resolved(self) -> Iterator[list[Row]]:
        for _, _, kind, text in self.rejected("IS NOT NULL"):
            yield rows_of(kind, json.decode(text))

    def accepted(self) -> Iterator[Row]:
        """The records of the files that were not rejected when they were dropped."""
        for name, rows in self.files.values():
            positions = query(
                self.database.url,
                """
                SELECT position
                FROM mobileye_data.rejected_records JOIN mobileye_data.ingested_files USING (file_id)
                WHERE name = %s
                """,
                (name,),
            )
            yield from (row for place, row in enumerate(rows) if (place,) not in positions)

    def stored(self) -> list[Row]:
        return [row for statement in TABLES.values() for row in query(self.database.url, statement)]

    def duplicates(self) -> int:
        statement = "SELECT coalesce(sum(rows_duplicate), 0) FROM mobileye_data.ingested_files"
        return int(query(self.database.url, statement)[0][0])

    def flaws(self) -> list[str]:
        with closing(self.database.connect()) as connection:
            return list(verify.resolved_wrongly(connection))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_record_is_a_row_a_duplicate_or_open(seed: int, database: Database, tmp_path: Path) -> None:
    world = World(seed, database, tmp_path)
    for _ in range(ROUNDS):
        for _ in range(6):
            world.drop()
        world.fix()
        stored, resolved = Counter(world.stored()), list(world.resolved())
        loaded = [*world.accepted(), *(row for rows in resolved for row in rows)]
        # The counts: no record is nowhere, and none is twice.
        assert len(loaded) == stored.total() + world.deleted.total() + world.duplicates()
        records = sum(len(rows) for _, rows in world.files.values())
        assert records == len(list(world.accepted())) + len(resolved) + len(world.rejected("IS NULL"))
        # The contents: what counts as loaded is there, or was until it was deleted; nothing else is there.
        assert {*loaded} <= {*stored, *world.deleted}
        assert {*stored} <= {*loaded}
        # What verify prints, and nothing else: what was resolved and is there no more.
        assert len(world.flaws()) == sum(not {*rows} <= {*stored} for rows in resolved)
    assert len(list(world.resolved())) > 5
