"""Times the questions of db/questions.py on a large database, and on the tables of the naive program."""

import hashlib
import os
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import psutil
import psycopg2
import typer
from psycopg2.extensions import connection as Connection
from rich.console import Console
from rich.table import Table

from benchmarks import report
from benchmarks.history import DAYS, FIRST, VEHICLES, fill, fill_naive
from benchmarks.server import running_server
from db import questions, schema
from db.connection import Database

#: Lines of a plan that are written, at most: long ranges have some for each day.
MOST_LINES = 40

#: A question is asked until one of these is reached.
MOST_TURNS, MOST_SECONDS = 200, 20.0


@dataclass(frozen=True)
class Range:
    """The values of one question: a vehicle and a range."""

    vehicle: str
    since: datetime
    until: datetime

    @property
    def before(self) -> datetime:
        return self.since - timedelta(minutes=10)


@dataclass(frozen=True)
class Question:
    """A question to our tables and to the naive ones: its range in days, and the target of its p95 in ms."""

    name: str
    days: float
    ours: str
    naive: str
    frame: Callable[[Connection, Range], Any]
    target: float | None = None


TIMELINE = "SELECT * FROM mobileye_data.vehicle_timeline(%(vehicle)s, %(since)s, %(until)s)"
NAIVE_TIMELINE = """
    SELECT detection_time, object_type, object_value FROM mobileye_data.objects_detection_events
    WHERE vehicle_id = %(vehicle)s AND detection_time >= %(since)s AND detection_time < %(until)s
    UNION ALL
    SELECT report_time, status, NULL FROM mobileye_data.vehicle_status_history
    WHERE vehicle_id = %(vehicle)s AND report_time >= %(since)s AND report_time < %(until)s
    ORDER BY 1, 2
"""
BY_HOUR = "SELECT * FROM mobileye_data.detections_by_hour(%(since)s, %(until)s)"
NAIVE_BY_HOUR = """
    SELECT date_trunc('hour', detection_time, 'UTC'), object_type, count(*), sum(object_value)
    FROM mobileye_data.objects_detection_events
    WHERE detection_time >= %(since)s AND detection_time < %(until)s
    GROUP BY 1, 2 ORDER BY 1, 2
"""
ACCIDENTS = "SELECT * FROM mobileye_data.accidents(%(since)s, %(until)s, 10)"
NAIVE_ACCIDENTS = """
    SELECT a.vehicle_id, a.report_time, d.object_type, count(*), sum(d.object_value), max(d.detection_time)
    FROM mobileye_data.vehicle_status_history a
    LEFT JOIN mobileye_data.objects_detection_events d
        ON d.vehicle_id = a.vehicle_id
        AND d.detection_time BETWEEN a.report_time - interval '10 minutes' AND a.report_time
        AND d.detection_time >= %(before)s AND d.detection_time < %(until)s
    WHERE a.status = 'accident' AND a.report_time >= %(since)s AND a.report_time < %(until)s
    GROUP BY 1, 2, 3 ORDER BY 2, 1, 3
"""
BUSIEST = "SELECT * FROM mobileye_data.busiest_vehicles(%(since)s, %(until)s)"
NAIVE_BUSIEST = """
    SELECT vehicle_id, count(*), sum(object_value) FROM mobileye_data.objects_detection_events
    WHERE detection_time >= %(since)s AND detection_time < %(until)s
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10
"""
LATEST_OF_ONE = "SELECT * FROM mobileye_data.vehicle_status WHERE vehicle_id = %(vehicle)s"
BY_STATUS = """
    SELECT status, count(*), max(report_time) FROM mobileye_data.vehicle_status GROUP BY 1 ORDER BY 1
"""
HOUR = 1 / 24


def _timeline(connection: Connection, asked: Range) -> Any:
    return questions.vehicle_timeline(connection, asked.vehicle, asked.since, asked.until)


def _by_hour(connection: Connection, asked: Range) -> Any:
    return questions.detections_by_hour(connection, asked.since, asked.until)


def _accidents(connection: Connection, asked: Range) -> Any:
    return questions.accidents(connection, asked.since, asked.until)


def _busiest(connection: Connection, asked: Range) -> Any:
    return questions.busiest_vehicles(connection, asked.since, asked.until)


QUESTIONS = [
    Question("one vehicle, an hour", HOUR, TIMELINE, NAIVE_TIMELINE, _timeline, 50),
    Question("one vehicle, a day", 1, TIMELINE, NAIVE_TIMELINE, _timeline, 50),
    Question("one vehicle, 60 days", DAYS, TIMELINE, NAIVE_TIMELINE, _timeline),
    Question(
        "latest status of one vehicle",
        0,
        LATEST_OF_ONE,
        LATEST_OF_ONE,
        lambda connection, asked: questions.latest_status(connection, asked.vehicle),
        50,
    ),
    Question(
        "vehicles by status",
        0,
        BY_STATUS,
        BY_STATUS,
        lambda connection, asked: questions.vehicles_by_status(connection),
    ),
    Question("fleet by hour, a day", 1, BY_HOUR, NAIVE_BY_HOUR, _by_hour, 20),
    Question("fleet by hour, 30 days", 30, BY_HOUR, NAIVE_BY_HOUR, _by_hour, 100),
    Question(
        "one vehicle by hour, a day",
        1,
        "SELECT * FROM mobileye_data.detections_by_hour(%(since)s, %(until)s, %(vehicle)s)",
        NAIVE_BY_HOUR.replace("WHERE", "WHERE vehicle_id = %(vehicle)s AND"),
        lambda connection, asked: questions.detections_by_hour(
            connection, asked.since, asked.until, asked.vehicle
        ),
        50,
    ),
    Question("accidents, a day", 1, ACCIDENTS, NAIVE_ACCIDENTS, _accidents, 50),
    Question("accidents, 30 days", 30, ACCIDENTS, NAIVE_ACCIDENTS, _accidents),
    Question("busiest vehicles, an hour", HOUR, BUSIEST, NAIVE_BUSIEST, _busiest),
    Question("busiest vehicles, a day", 1, BUSIEST, NAIVE_BUSIEST, _busiest),
]


def answers(
    rows: Annotated[
        int, typer.Option(min=100_000, help="Detections in each of the two databases.")
    ] = 50_000_000,
    only: Annotated[list[str] | None, typer.Option(help="Only questions whose name contains this.")] = None,
    plans: Annotated[Path | None, typer.Option(help="Write the plans of our questions to this file.")] = None,
    beside: Annotated[bool, typer.Option(help="Ask the tables of the naive program, too.")] = True,
    keep: Annotated[
        Path | None, typer.Option(help="Keep the server in this folder, and use the databases that it has.")
    ] = None,
) -> None:
    """Prints how long each question takes, beside the same question to the tables of the naive program."""
    chosen = [q for q in QUESTIONS if not only or any(part in q.name for part in only)]
    facts = {**report.environment(), "detections": f"{rows:,}", "vehicles": VEHICLES, "days": DAYS}
    with running_server(keep and keep.resolve()) as server:
        facts["server"] = server.version()
        url = server.kept_database(f"ours_{rows}", lambda url: fill(url, rows))
        with closing(Database(url).connect()) as connection:
            schema.apply(connection)  # an older checkout may have filled it
        loads = [os.getloadavg()[0]]
        times: dict[str, list[Timing]] = {}
        for question in chosen:
            times[question.name] = [*measure(url, question)]
            loads.append(os.getloadavg()[0])
        facts["load"] = f"{min(loads):.1f} to {max(loads):.1f} on {os.cpu_count()} cores"
        if plans:
            plans.write_text("".join(described(url, chosen, facts)))
        if beside:
            url = server.kept_database(f"naive_{rows}", lambda url: fill_naive(url, rows))
            for question in chosen:
                times[question.name].append(timed(url, question.name, asking(question.naive), question.days))
    show(chosen, times, facts)


Ask = Callable[[Connection, Range], object]


def asking(statement: str) -> Ask:
    """Returns a function that asks and takes all rows."""

    def ask(connection: Connection, asked: Range) -> object:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, _values(asked))
            return cursor.fetchall()

    return ask


def _values(asked: Range) -> dict[str, object]:
    return {**vars(asked), "before": asked.before}


@dataclass(frozen=True)
class Timing:
    """Milliseconds of each turn, and the mean of those that the server's process has worked."""

    turns: list[float]
    processor: float

    @property
    def median(self) -> float:
        return statistics.median(self.turns)

    @property
    def p95(self) -> float:
        return sorted(self.turns)[round(0.95 * (len(self.turns) - 1))]


def measure(url: str, question: Question) -> Iterator[Timing]:
    """Yields the times of the statement, then those of the function that gives a DataFrame."""
    yield timed(url, question.name, asking(question.ours), question.days)
    yield timed(url, f"{question.name}, DataFrame", question.frame, question.days)


def timed(url: str, name: str, ask: Ask, days: float) -> Timing:
    """Asks in turns, each with another vehicle and range; the first turn is not counted."""
    ranges = asked_ranges(days)
    times: list[float] = []
    with closing(psycopg2.connect(url)) as connection:
        ask(connection, next(ranges))
        server = psutil.Process(connection.info.backend_pid)
        worked = sum(server.cpu_times()[:2])
        started = time.perf_counter()
        while len(times) < MOST_TURNS and (len(times) < 3 or time.perf_counter() - started < MOST_SECONDS):
            asked = next(ranges)
            before = time.perf_counter()
            ask(connection, asked)
            times.append((time.perf_counter() - before) * 1000)
        worked = sum(server.cpu_times()[:2]) - worked
    print(f"{name}: p50 {statistics.median(times):.2f} ms, {len(times)} turns", file=sys.stderr)
    return Timing(times, 1000 * worked / len(times))


def asked_ranges(days: float) -> Iterator[Range]:
    """Yields random vehicles and ranges, the same ones in each run."""
    draw = random.Random(1)
    while True:
        hours = draw.randrange(round((DAYS - days) * 24) + 1)
        since = FIRST + timedelta(hours=hours)
        vehicle = hashlib.md5(str(draw.randrange(VEHICLES)).encode(), usedforsecurity=False).hexdigest()
        yield Range(vehicle, since, since + timedelta(days=days))


def show(chosen: Sequence[Question], times: dict[str, list[Timing]], facts: dict[str, Any]) -> None:
    """Prints the table; the processor time says what a question costs, however busy the machine is."""
    console = Console(width=150, highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()))
    columns = (
        "question, ms",
        "p50",
        "p95",
        "target",
        "processor",
        "DataFrame p50",
        "p95",
        "naive p50",
        "p95",
        "processor",
        "ratio of p50",
    )
    table = Table(*columns, show_edge=False)
    for question in chosen:
        mine, frame, *theirs = times[question.name]
        row = [mine.median, mine.p95, question.target, mine.processor, frame.median, frame.p95]
        for naive in theirs:
            row += [naive.median, naive.p95, naive.processor, naive.median / mine.median]
        table.add_row(question.name, *["" if value is None else f"{value:,.3g}" for value in row])
    console.print(table)


# Plans ---------------------------------------------------------------------------------------------------


def described(url: str, chosen: Sequence[Question], facts: dict[str, Any]) -> Iterator[str]:
    """Yields a page with the plan of each question."""
    yield "# Plans of the questions\n\n"
    yield "Made by `python -m benchmarks answers --plans`. "
    yield ", ".join(f"{name} {value}" for name, value in facts.items()) + ".\n"
    for question in chosen:
        yield f"\n## {question.name}\n\n```\n"
        lines = plan(url, question)
        left_out = [f"… ({len(lines) - MOST_LINES} more lines)"] if len(lines) > MOST_LINES else []
        yield from (f"{line}\n" for line in lines[:MOST_LINES] + left_out)
        yield "```\n"


def plan(url: str, question: Question) -> list[str]:
    """The plan of a statement, or of the one that its function executes."""
    asked = next(asked_ranges(question.days))
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        statement = cursor.mogrify(question.ours, _values(asked)).decode()
        called = re.search(r"FROM (mobileye_data\.\w+)\(", statement)
        if called:
            cursor.execute("SELECT prosrc FROM pg_proc WHERE oid = to_regproc(%s)", (called[1],))
            ((body,),) = cursor.fetchall()
            executed = re.findall(r"\$q\$(.*?)\$q\$ USING (.*?);", body, re.DOTALL)
            is_of_one = "%(vehicle)s" in question.ours
            text, names = executed[-1 if is_of_one else 0]
            statement = _with_values(cursor, text, names, asked)
        cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, BUFFERS OFF, COSTS OFF) {statement}")
        return [line for (line,) in cursor.fetchall()]


def _with_values(cursor: Any, text: str, names: str, asked: Range) -> str:
    """The statement that a function executes, with the values of a question in their places."""
    known = {"vehicle": asked.vehicle, "since": asked.since, "until": asked.until, "most": 10}
    known |= {"before": timedelta(minutes=10), "since - before": asked.before}
    hours = re.compile(r"date_trunc\('hour', (\w+) \+ nearly, 'UTC'\)")
    for number, name in enumerate(hours.sub(r"\1", names).split(", "), 1):
        text = text.replace(f"${number}", cursor.mogrify("%s", (known[name.strip()],)).decode())
    return text
