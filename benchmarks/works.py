"""Runs the workloads: each makes its files, lets the contenders take turns and returns the figures."""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from io import StringIO
from pathlib import Path

import psycopg2

from benchmarks import ours
from benchmarks.contenders import ROOT, SLOW, Bench, count_made
from benchmarks.files import COLUMNS, FIRST_DAY, KINDS, TABLES, Fleet, Made, make_files
from benchmarks.odd_files import ODD_FILES
from benchmarks.profile import figures as profile_figures
from benchmarks.profile import stages
from benchmarks.report import Figures, Ratio
from benchmarks.server import count_rows, execute

Result = tuple[list[Figures], list[Ratio]]


def bulk(bench: Bench) -> Result:
    """Loads 10 files of 100,000 rows of both kinds."""
    files = make_files(bench.folder / "bulk", [100_000] * 10, seed=1)
    names = ("duckdb_attach", "polars_adbc", "pandas_sql", "dlt_pipeline", "naive")
    small = make_files(bench.folder / "bulk-part", [20_000] * 10, seed=2)
    figures = bench.take_turns(
        "bulk",
        "rows/s",
        {
            "limit": lambda: bench.limit(files),
            "limit, as ours": lambda: bench.limit_as_ours(files),
            "ours": lambda: bench.ours(files),
            **{name: _alternative(bench, name, small if name in SLOW else files) for name in names},
        },
    )
    _remark(figures)
    ratios = [
        _ratio(figures, "bulk: ours / limit", "limit", "≥ 1.0"),
        _ratio(figures, "bulk: ours / DuckDB", "duckdb_attach", "≥ 1.4"),
        _ratio(figures, "bulk: ours / polars+ADBC", "polars_adbc", "≥ 1.6"),
        _ratio(figures, "bulk: ours / naive", "naive", "≥ 12"),
    ]
    return list(figures.values()), ratios


def large(bench: Bench) -> Result:
    """Loads one file of 2,000,000 rows."""
    files = make_files(bench.folder / "large", [2_000_000], seed=3)
    figures = bench.take_turns(
        "one large file",
        "rows/s",
        {
            "limit": lambda: bench.limit(files),
            "limit, as ours": lambda: bench.limit_as_ours(files),
            "ours": lambda: bench.ours(files),
            "duckdb_attach": _alternative(bench, "duckdb_attach", files),
            "polars_adbc": _alternative(bench, "polars_adbc", files),
        },
    )
    _remark(figures)
    return list(figures.values()), [_ratio(figures, "one large file: ours / limit", "limit", "≥ 0.9")]


def small(bench: Bench) -> Result:
    """Loads 20,000 files of 12 rows."""
    files = make_files(bench.folder / "small", [12] * 20_000, seed=4)
    figures = bench.take_turns(
        "small files",
        "files/s",
        {
            "ours": lambda: bench.ours(files) / 12,
            "duckdb_attach": lambda: bench.alternative("duckdb_attach", files) / 12,
            "polars_adbc": lambda: bench.alternative("polars_adbc", files, 0.05) / 12,
            "naive": lambda: bench.alternative("naive", files, 0.05) / 12,
        },
    )
    _remark(figures)
    ratios = [
        Ratio("small files: ours, files/s", figures["ours"].median, "≥ 5,000"),
        _ratio(figures, "small files: ours / naive", "naive", "≥ 20"),
    ]
    return list(figures.values()), ratios


def trickle(bench: Bench, seconds: int = 60) -> Result:
    """Drops 100 files a second for a minute; measures the time until another client sees the rows."""
    delays: list[float] = []
    count = 100 * seconds
    with bench.server.database() as url, ours.running(url) as daemon, tempfile.TemporaryDirectory() as place:
        texts = [made.path.read_bytes() for made in make_files(Path(place), [12] * count, seed=5)]
        time.sleep(1)
        closed: dict[str, float] = {}
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            started, last, written = time.perf_counter(), -1, 0
            while len(delays) < count:
                if written < count and time.perf_counter() >= started + written / 100:
                    name = f"{KINDS[written % 2]}_{written:06}.json"
                    (daemon.folder / name).write_bytes(texts[written])
                    closed[name] = time.perf_counter()
                    written += 1
                cursor.execute(
                    "SELECT file_id, name FROM mobileye_data.ingested_files WHERE file_id > %s", (last - 200,)
                )
                seen = time.perf_counter()
                for file_id, name in cursor.fetchall():
                    last = max(last, file_id)
                    if name in closed:
                        delays.append(seen - closed.pop(name))
                time.sleep(0.001)
    quantiles = statistics.quantiles(delays, n=100)
    p50, p99 = 1000 * quantiles[49], 1000 * quantiles[98]
    figures = [Figures("trickle", "ours", f"ms p{p}", [value]) for p, value in ((50, p50), (99, p99))]
    return figures, [Ratio("trickle: p50, ms", p50, "≤ 10"), Ratio("trickle: p99, ms", p99, "≤ 50")]


def growth(bench: Bench) -> Result:
    """Measures bulk loads, each of a new day, into tables of 1, 10 and 50 million rows."""
    figures: list[Figures] = []
    with bench.server.database() as url:
        for number, millions in enumerate((1, 10, 50)):
            _fill(url, millions * 1_000_000)
            row = Figures("growth", f"at {millions} M rows", "rows/s")
            for turn in range(bench.turns):
                seed = 100 + 10 * number + turn
                day = FIRST_DAY + timedelta(days=number * bench.turns + turn)
                files = make_files(bench.folder / f"growth-{seed}", [100_000] * 4, seed, day=day)
                for table in TABLES.values():
                    execute(url, f"SELECT mobileye_data.add_partition('{table}', '{day.date()}')")
                ended = execute(url, "SELECT count(*) FROM mobileye_data.ingested_files")[0][0]
                with bench.copied(files) as (place, _), ours.running(url) as daemon:
                    row.values.append(count_made(files) / daemon.load(place, ended + len(files)))
                shutil.rmtree(bench.folder / f"growth-{seed}")
            figures.append(row)
    ratio = figures[-1].median / figures[0].median
    return figures, [Ratio("growth: at 50 M / at 1 M", ratio, "≥ 0.85")]


def memory(bench: Bench) -> Result:
    """Measures the peak memory of daemon and workers.

    By size of the file, with all workers busy, and for files whose text is small beside what it becomes.
    """
    cases = {"10 MB": [10], "100 MB": [100], "2 GB": [2000], "two of 500 MB": [500, 500]}
    figures = {}
    place = bench.folder / "memory"
    for name, sizes in cases.items():
        for number, megabytes in enumerate(sizes):
            _make_bytes(place, megabytes * 1_000_000, first_day=1000 * number)
        figures[name] = _peak(bench, name, place)
    for name, make in ODD_FILES.items():
        make(place)
        figures[name] = _peak(bench, name, place)
    most = max(row.median for row in figures.values())
    return list(figures.values()), [
        Ratio("memory: at 2 GB / at 100 MB", figures["2 GB"].median / figures["100 MB"].median, "≤ 1.1"),
        Ratio("memory: daemon and workers, MB", most, "≤ 250"),
    ]


def repeat(bench: Bench) -> Result:
    """Loads files, then files with 1 % stored rows, then the first rows again in other bytes."""
    names = ("first load", "1 % duplicates", "all duplicates")
    figures = {name: Figures("repeat", name, "rows/s") for name in names}
    first = make_files(bench.folder / "repeat", [100_000] * 4, seed=6)
    again = make_files(bench.folder / "repeat-again", [100_000] * 4, seed=6, indent=" ")
    mixed = make_files(bench.folder / "repeat-mixed", [100_000] * 4, seed=7)
    for _ in range(bench.turns):
        with bench.server.database() as url, ours.running(url) as daemon:
            for number, (name, files) in enumerate(zip(names, (first, mixed, again), strict=True)):
                if files is mixed:
                    _insert_hundredth(url, mixed)
                with bench.copied(files) as (place, _):
                    seconds = daemon.load(place, 4 * (number + 1))
                figures[name].values.append(count_made(files) / seconds)
            assert count_rows(url) == count_made(first) + count_made(mixed)
    base = figures["first load"].median
    return list(figures.values()), [
        Ratio("repeat: all duplicates / first load", figures["all duplicates"].median / base, "≥ 0.5"),
        Ratio("repeat: 1 % duplicates / first load", figures["1 % duplicates"].median / base, "≥ 0.8"),
    ]


def start(bench: Bench) -> Result:
    """Measures python main.py until it watches, with an embedded database that exists."""
    figures = Figures("start", "ours", "s")
    with tempfile.TemporaryDirectory() as place:
        with ours.running(None, Path(place)):
            pass
        for _ in range(bench.turns):
            started = time.perf_counter()
            with ours.running(None, Path(place)):
                figures.values.append(time.perf_counter() - started)
    return [figures], [Ratio("start: seconds", figures.median, "≤ 3")]


def profile(bench: Bench) -> Result:
    """Measures the stages of one worker and its server process."""
    files = make_files(bench.folder / "profile", [100_000] * 4, seed=9)
    turns = []
    for _ in range(bench.turns):
        with bench.server.database() as url, bench.copied(files) as (place, _):
            turns.append(stages(place, files, url))
    return profile_figures(turns), []


WORKLOADS: dict[str, Callable[[Bench], Result]] = {
    workload.__name__: workload
    for workload in (bulk, large, small, repeat, trickle, memory, growth, start, profile)
}


def _peak(bench: Bench, name: str, place: Path) -> Figures:
    """While the files of a place are loaded, which they leave."""
    with (
        bench.server.database() as url,
        ours.running(url) as daemon,
        ours.PeakMemory(daemon.process.pid) as peak,
    ):
        daemon.load(place, len(list(place.iterdir())))
    shutil.rmtree(place)
    return Figures("memory", name, "MB", [peak.bytes / 1e6])


def _alternative(bench: Bench, name: str, files: list[Made]) -> Callable[[], float]:
    return lambda: bench.alternative(name, files)


def _ratio(figures: dict[str, Figures], name: str, other: str, target: str) -> Ratio:
    pairs = zip(figures["ours"].values, figures[other].values, strict=True)
    return Ratio(name, statistics.median(mine / theirs for mine, theirs in pairs), target)


def _remark(figures: dict[str, Figures]) -> None:
    for name, row in figures.items():
        source = ROOT / "benchmarks" / "alternatives" / f"{name}.py"
        if source.exists():
            line = next(line for line in source.read_text().splitlines() if line.startswith("LACKS"))
            row.remark = line.partition('"')[2].rstrip('"')


def _fill(url: str, rows: int) -> None:
    """Fills the table of detections up to `rows`, with a million rows for each day before the loaded ones."""
    there = execute(url, "SELECT count(*) FROM mobileye_data.objects_detection_events")[0][0]
    filled = execute(
        url,
        f"SELECT count(DISTINCT detection_time::date) FROM mobileye_data.objects_detection_events"
        f" WHERE detection_time < '{FIRST_DAY.date()}'",
    )[0][0]
    for number in range(max(0, (rows - there) // 1_000_000)):
        day = (FIRST_DAY - timedelta(days=filled + number + 1)).date()
        execute(url, f"SELECT mobileye_data.add_partition('objects_detection_events', '{day}')")
        execute(
            url,
            f"""
            INSERT INTO mobileye_data.objects_detection_events
            SELECT md5((i % 3000)::text), '{day}'::timestamptz + i / 5 * interval '400 ms',
                   (ARRAY['pedestrians', 'cars', 'trucks', 'signs', 'obstacles'])[i % 5 + 1], i % 9, NULL, 0
            FROM generate_series(0, 999999) i
            """,
        )
    # Otherwise autovacuum would run during the loads: two of its workers on two cores cost 30 % (measured).
    execute(url, "VACUUM (ANALYZE)")
    execute(url, "CHECKPOINT")


def _insert_hundredth(url: str, files: list[Made]) -> None:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        for made in files:
            text = made.copy_text(every=100)
            statement = f"COPY mobileye_data.{TABLES[made.kind]} ({COLUMNS[made.kind]}) FROM STDIN"
            cursor.copy_expert(statement, StringIO(text))
        connection.commit()


def _make_bytes(place: Path, size: int, first_day: int) -> None:
    """Makes a file of about `size` bytes from repeated text of 10 MB, each time a day later."""
    made = Fleet(8).make(place, KINDS[0], 143_000, 0)
    text = made.path.read_text()
    body = text[text.index("[") + 1 : text.rindex("]")]
    made.path.unlink()
    with open(place / f"{KINDS[0]}_{first_day}.json", "w") as file:
        file.write('{"objects_detection_events": [')
        for turn in range(max(1, size // len(text))):
            day = (FIRST_DAY + timedelta(days=first_day + turn)).date().isoformat()
            file.write((", " if turn else "") + body.replace(FIRST_DAY.date().isoformat(), day))
        file.write("]}")
    os.sync()
