"""Does the housekeeping of the daemon now: drops old days, and moves rows of "other" to their days."""

import time
from collections.abc import Callable

from psycopg2.extensions import connection as Connection

from config import Settings
from db import retention
from db.tables import TABLES, Tables
from processing.counted import counted, noun
from service.events import DayDropped, Event, PartitionMade, StraysDropped
from service.upkeep import Upkeep

#: How often it tries to get a lock that is not free, and the pause between.
_TRIES = 10
_PAUSE_SECONDS = 0.5

Report = Callable[[str], None]


def run(
    settings: Settings, connection: Connection, report: Report, tables: Tables = TABLES, tries: int = _TRIES
) -> int:
    """Reports each step over a connection with autocommit; returns 0 if nothing is left to do, else 1."""

    def pause(seconds: float) -> bool:
        time.sleep(min(seconds, _PAUSE_SECONDS))
        return False

    upkeep = Upkeep(connection, lambda event: report(_line(event)), pause, tables)
    is_done = settings.retention_days is None or _drop_old(
        settings.retention_days, connection, upkeep, report, tries
    )
    upkeep.bring_home()
    left = upkeep.find_others()
    for others in left:
        report(
            f"{others.table}: {counted(others.rows, 'row')} of {counted(others.days, 'day')} "
            f"{noun(others.rows, 'is', 'are')} left in the partition other"
        )
    if is_done and not left:
        report("the tables are in order")
    return 0 if is_done and not left else 1


def _drop_old(days: int, connection: Connection, upkeep: Upkeep, report: Report, tries: int) -> bool:
    with connection.cursor() as cursor:
        first_day = retention.first_day(cursor, days)
    if any(upkeep.drop_old(first_day) for _ in range(tries)):
        return True
    report(f"days before {first_day} are left: others read or load these tables now; try again later")
    return False


def _line(event: Event) -> str:
    match event:
        case DayDropped(table, day, rows):
            return f"{table}: {day} dropped, {counted(rows, 'row')}"
        case StraysDropped(table, rows):
            return f"{table}: {counted(rows, 'old row')} of the partition other dropped"
        case PartitionMade(table, day):
            return f"{table}: {day} has its partition now"
        case _:
            return str(event)
