"""Compares the tables, the folders and the log with the journal."""

import time
from collections import Counter
from collections.abc import Iterable, Set
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import psycopg2

from tests.chaos.producers import CANARY, DETECTIONS, MARK, START, STATES, TYPES, Dropped, Journal
from tests.support import query

#: The faults that are counted; docs/reliability.md explains them.
FAULTS = ("lost", "left", "doubled", "phantom", "torn", "wrong deletes", "good failed", "leaks", "ledger")

_TABLES = {"objects_detection": "objects_detection_events", "vehicles_status": "vehicle_status_history"}

#: For each table: the index that a row claims, and whether its other columns fit that index.
_ROWS = {
    "objects_detection_events": (
        "object_value",
        f"""
        detection_time = '{START}'::timestamptz + object_value / 5 * interval '1 s'
        AND object_type = (ARRAY{list(TYPES)})[object_value % 5 + 1]
        """,
    ),
    "vehicle_status_history": (
        f"extract(epoch FROM report_time - '{START}'::timestamptz)::integer",
        f"""
        status =
            (ARRAY{list(STATES)})[extract(epoch FROM report_time - '{START}'::timestamptz)::integer % 3 + 1]
        """,
    ),
}


def judge(url: str, journal: Journal, waiting: Set[str], quarantined: Set[str]) -> Counter[str]:
    """Counts the faults after the backlog has drained, without leaks and what the reader has seen.

    The sets are the marks of the files that wait, and of those that were put aside.
    """
    found: Counter[str] = Counter()
    whole: set[str] = set()
    for kind, table in _TABLES.items():
        _judge_rows(url, table, {v: f for v, f in journal.files.items() if f.kind == kind}, found, whole)
    missing = journal.files.keys() - whole - journal.optional
    for vehicle in missing:
        mark = journal.files[vehicle].mark
        if mark in waiting:
            found["left"] += journal.files[vehicle].rows
        elif mark not in quarantined:
            found["wrong deletes"] += 1
            found["lost"] += journal.files[vehicle].rows
    found["good failed"] = len(quarantined & {file.mark for file in journal.files.values()})
    found["lost"] += _stale(url, journal, whole)
    found["ledger"] = _unbalanced(url)
    return found


def _judge_rows(
    url: str, table: str, files: dict[str, Dropped], found: Counter[str], whole: set[str]
) -> None:
    index, fits = _ROWS[table]
    rows = query(
        url,
        f"""
        SELECT vehicle_id, count(*), count(DISTINCT i), max(i), count(*) FILTER (WHERE NOT fits)
        FROM (SELECT vehicle_id, {index} AS i, {fits} AS fits FROM mobileye_data.{table}) AS claimed
        GROUP BY vehicle_id
        """,
    )
    for vehicle, count, distinct, highest, unfit in rows:
        file = files.get(vehicle)
        found["rows"] += count
        if file is None or unfit or highest >= file.rows:
            found["phantom"] += count
            continue
        found["doubled"] += count - distinct
        found["torn"] += distinct < file.rows
        whole |= {vehicle} if distinct == file.rows else set()


def _stale(url: str, journal: Journal, whole: set[str]) -> int:
    """Counts vehicles whose latest status is not the last one of their file."""
    index = f"extract(epoch FROM report_time - '{START}'::timestamptz)::integer"
    latest = dict(query(url, f"SELECT vehicle_id, {index} FROM mobileye_data.vehicle_status"))
    status_files = [journal.files[vehicle] for vehicle in whole if journal.files[vehicle].kind != DETECTIONS]
    return sum(latest.get(file.vehicle) != file.rows - 1 for file in status_files)


def _unbalanced(url: str) -> int:
    """Counts ledger entries whose number of rows is not that in the tables."""
    if query(url, "SELECT to_regclass('mobileye_data.ingested_files')") == [(None,)]:
        return 0  # the naive program has none
    ((count,),) = query(
        url,
        """
        SELECT count(*)
        FROM (SELECT file_id, rows_inserted
              FROM mobileye_data.ingested_files WHERE state = 'loaded') AS entries
        FULL JOIN (
            SELECT file_id, count(*) AS rows
            FROM (SELECT file_id FROM mobileye_data.objects_detection_events
                  UNION ALL SELECT file_id FROM mobileye_data.vehicle_status_history) AS stored
            GROUP BY file_id
        ) AS counted USING (file_id)
        WHERE coalesce(rows_inserted, -1) <> coalesce(rows, 0)
        """,
    )
    return int(count)


def marks_below(folder: Path) -> set[str]:
    """Returns the marks of all files in and below a folder; those in failed/ only if that is the folder."""
    within = (path for path in folder.rglob("*") if folder.name == "failed" or "failed" not in path.parts)
    return marks(path.name for path in within)


def marks(names: Iterable[str]) -> set[str]:
    """Returns the marks in names of files."""
    return {match[0] for name in names if (match := MARK.search(name))}


def leaks(log: Iterable[str], secrets: Iterable[str]) -> list[str]:
    """Returns the log lines that quote a file or contain a secret."""
    words = (CANARY, *secrets)
    return [line for line in log if any(word in line for word in words)]


class Reader:
    """A client that polls the rows of the latest files; it must see each file whole or not at all."""

    _AT_ONCE = 60
    _PAUSE = 0.02

    def __init__(self, url: str, journal: Journal) -> None:
        self._url = url
        self._journal = journal
        self.torn: set[str] = set()
        self.looks = 0

    def watch(self, stop: Event) -> None:
        while not stop.wait(self._PAUSE):
            try:
                with closing(psycopg2.connect(self._url)) as connection:
                    connection.autocommit = True
                    self._look_until_stopped(connection, stop)
            except psycopg2.Error:
                time.sleep(self._PAUSE)  # the server is away, or has no tables yet

    def _look_until_stopped(self, connection: Any, stop: Event) -> None:
        with connection.cursor() as cursor:
            while not stop.wait(self._PAUSE):
                files = {file.vehicle: file for file in self._journal.recent(self._AT_ONCE)}
                for table in _TABLES.values():
                    cursor.execute(
                        f"""
                        SELECT vehicle_id, count(*) FROM mobileye_data.{table}
                        WHERE vehicle_id = ANY (%s) GROUP BY vehicle_id
                        """,
                        (list(files),),
                    )
                    self.torn |= {vehicle for vehicle, rows in cursor if rows < files[vehicle].rows}
                self.looks += 1
