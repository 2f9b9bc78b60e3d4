"""A third kind of file, declared as README says and handed in from outside, is loaded like the two others."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg2
import pytest
from msgspec import json

import db.copy_format
import db.tables
import watcher.scan
from commands import check, replay, verify
from config import Settings, load_settings
from db.connection import Database
from db.sink import PostgresSink
from db.tables import TABLES
from processing.batch import FileTask, Outcome
from processing.file_types import KINDS
from processing.loader import Loader
from service.events import Event, PartitionMade
from service.file_kinds import FileKinds
from service.housekeeping import Housekeeping
from sources.folder import FolderSource
from sources.policy import OnLoaded
from tests.support import ROOT, drop, query, statuses, until

LOADER = "mobileye_loader"
ADDS_UP = ["ledger, tables and folders add up"]
PARTITIONED = ["tyre_pressures_20220605", "tyre_pressures_20220606"]


def blocks() -> dict[str, str]:
    """The code of README's section, by the file of which it is to be a part."""
    section = (ROOT / "README.md").read_text().partition("## Add a kind of file")[2].partition("\n## ")[0]
    found = re.findall(r"```(?:python|sql)\n(?:#|--) (\S+)\n(.*?)```", section, re.DOTALL)
    assert [name for name, _ in found] == [
        "processing/tyre_pressures.py",
        "db/copy_format.py",
        "db/tables.py",
        "schema.sql",
    ]
    return dict(found)


def run(code: str, module: ModuleType | None = None, **names: Any) -> dict[str, Any]:
    """What the code defines, as a module of its own or at the end of a copy of another one."""
    defined = {**(vars(module) if module else {"__name__": "tyre_pressures"}), **names}
    exec(code, defined)
    return defined


@pytest.fixture(scope="module")
def known() -> FileKinds:
    code = blocks()
    kind = run(code["processing/tyre_pressures.py"])["KIND"]
    pack = run(code["db/copy_format.py"], db.copy_format)["pack_pressures"]
    table = run(code["db/tables.py"], db.tables, pack_pressures=pack)["TYRE_PRESSURES"]
    return FileKinds({**KINDS, kind.name: kind}, {**TABLES, kind.name: table})


class Fleet:
    """A drop folder, loaded under the role of db/roles.sql by a program that knows a third kind."""

    def __init__(self, settings: Settings, database: Database, known: FileKinds) -> None:
        self.settings = settings
        self.database = database
        self.known = known

    def load(self, name: str, content: bytes) -> Outcome:
        folder, failed = str(self.settings.folder), str(self.settings.failed)
        drop(Path(folder), name, content)
        source = FolderSource(folder, failed, "", OnLoaded.DELETE)
        with closing(PostgresSink(self.database, tables=self.known.tables)) as sink:
            loader = Loader(source, sink, self.settings.max_file_bytes, kinds=self.known.kinds)
            (outcome,) = loader.load([FileTask(name)])
        return outcome

    def edit(self, original: dict[str, Any]) -> tuple[int, list[str]]:
        """Replays the only open record with another text."""
        ((file_id, position),) = self.rows("SELECT file_id, position FROM mobileye_data.open_rejects")
        path = Path(self.settings.folder).parent / "edits"
        path.write_bytes(json.encode([{"file_id": file_id, "position": position, "original": original}]))
        lines: list[str] = []
        code = replay.edited_records(self.settings, self.database, path, lines.append, self.known)
        return code, lines

    def verify(self) -> list[str]:
        lines: list[str] = []
        with closing(psycopg2.connect(self.database.url)) as connection:
            verify.run(self.settings, connection, lines.append, self.known)
        return lines

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return query(self.database.url, statement)


@pytest.fixture
def fleet(
    tmp_path: Path, database: Database, known: FileKinds, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fleet]:
    (tmp_path / "incoming").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database.url)
    query(database.url, blocks()["schema.sql"])
    query(database.url, (ROOT / "db" / "roles.sql").read_text())
    query(database.url, f"ALTER ROLE {LOADER} PASSWORD 'least'")
    loader = psycopg2.extensions.make_dsn(database.url, user=LOADER, password="least")
    yield Fleet(load_settings(), Database(loader), known)
    query(database.url, f"DROP OWNED BY {LOADER}; DROP ROLE {LOADER}")


def measured(day: int, kilopascals: object = 240, **more: Any) -> dict[str, Any]:
    time = f"2022-06-{day:02}T12:00:00Z"
    return {"vehicle_id": "v1", "measured_at": time, "kilopascals": kilopascals, **more}


def pressures(*elements: dict[str, Any]) -> bytes:
    return json.encode({"tyre_pressures": elements})


NO_NUL = "Expected text without NUL characters, got one with NUL"
STORED = """
    SELECT vehicle_id, extract(day FROM measured_at)::integer, kilopascals, extra
    FROM mobileye_data.tyre_pressures
    ORDER BY 2
"""


def test_a_file_of_it_becomes_rows_in_partitions_of_their_days(fleet: Fleet) -> None:
    outcome = fleet.load("tyre_pressures_1.json", pressures(measured(5), measured(6, 250, wheel=["left", 1])))
    assert (outcome.state, outcome.kind, outcome.counts.inserted) == ("loaded", "tyre_pressures", 2)
    assert watcher.scan.waiting(str(fleet.settings.folder)) == []
    assert fleet.rows(STORED) == [("v1", 5, 240, None), ("v1", 6, 250, {"wheel": ["left", 1]})]
    partitions = "SELECT DISTINCT tableoid::regclass::text FROM mobileye_data.tyre_pressures ORDER BY 1"
    assert fleet.rows(partitions) == [(f"mobileye_data.{name}",) for name in PARTITIONED]
    assert fleet.verify() == ADDS_UP


@pytest.mark.parametrize("copies", [1, 100])
def test_the_same_row_again_is_a_duplicate_and_another_value_a_conflict(fleet: Fleet, copies: int) -> None:
    rows = [measured(5, vehicle_id=f"v{i}") for i in range(copies)]
    fleet.load("a.json", pressures(*rows))
    assert fleet.load("b.json", pressures(*rows) + b"\n").counts.duplicate == copies
    counts = fleet.load("c.json", pressures(*rows[1:], {**rows[0], "kilopascals": 9})).counts
    assert (counts.duplicate, counts.rejected) == (copies - 1, 1)
    path = f"$.tyre_pressures[{copies - 1}]"
    detail = "Expected the value stored under this key (kilopascals=240 extra=null), got another"
    assert fleet.rows("SELECT path, detail FROM mobileye_data.open_rejects") == [(path, detail)]
    assert fleet.verify() == ADDS_UP


@pytest.mark.parametrize(
    ("bad", "path", "detail"),
    [
        (measured(5, -1), ".kilopascals", "Expected a pressure of at least 0"),
        (measured(5, "much"), ".kilopascals", "Expected `int`, got `str`"),
        (
            measured(5, vehicle_id="a\0"),
            ".vehicle_id",
            NO_NUL,
        ),
    ],
)
def test_a_rejected_record_is_loaded_once_it_is_edited(
    fleet: Fleet, bad: dict[str, Any], path: str, detail: str
) -> None:
    assert fleet.load("tyre_pressures_1.json", pressures(measured(4), bad)).counts.rejected == 1
    reject = (f"$.tyre_pressures[1]{path}", "invalid", detail, json.encode(bad).decode())
    shown = "SELECT path, reason, detail, original::text FROM mobileye_data.open_rejects"
    assert fleet.rows(shown) == [reject]
    assert fleet.edit(measured(5, "still")) == (
        1,
        [
            "tyre_pressures_1.json, record 1 of file 1: $.tyre_pressures[0].kilopascals  "
            "invalid: Expected `int`, got `str`",
            "1 record: 0 loaded, 1 still rejected",
        ],
    )
    assert fleet.edit(measured(5, 230)) == (0, ["1 record: 1 loaded, 0 still rejected"])
    assert fleet.rows(STORED) == [("v1", 4, 240, None), ("v1", 5, 230, None)]
    assert fleet.rows("SELECT resolved_by IS NOT NULL FROM mobileye_data.rejected_records") == [(True,)]
    assert fleet.verify() == ADDS_UP


def test_a_replayed_record_that_is_stored_already_names_the_file_of_its_row(fleet: Fleet) -> None:
    fleet.load("tyre_pressures_1.json", pressures(measured(4), {}))
    assert fleet.edit(measured(4)) == (
        0,
        [
            "tyre_pressures_1.json, record 1 of file 1: "
            "a duplicate of a row of file 1 (tyre_pressures_1.json)",
            "1 record: 1 loaded, 0 still rejected",
        ],
    )
    assert fleet.verify() == ADDS_UP


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (
            "DELETE FROM mobileye_data.tyre_pressures WHERE kilopascals = 240",
            "file 1 (tyre_pressures_1.json): 0 rows stored, 1 loaded: was a partition dropped?",
        ),
        (
            "UPDATE mobileye_data.tyre_pressures SET kilopascals = 1 WHERE kilopascals = 230",
            "tyre_pressures_1.json, record 1 of file 1: resolved, but another value is stored under its key",
        ),
    ],
)
def test_verify_finds_what_does_not_add_up(fleet: Fleet, database: Database, change: str, flaw: str) -> None:
    fleet.load("tyre_pressures_1.json", pressures(measured(4), {}))
    fleet.edit(measured(5, 230))
    query(database.url, change)
    assert fleet.verify() == [flaw, "1 thing does not add up"]


@pytest.mark.parametrize("copies", [1, 100])
def test_what_a_rule_takes_from_its_table_is_refused(fleet: Fleet, database: Database, copies: int) -> None:
    rule = (
        "CREATE RULE away AS ON INSERT TO mobileye_data.tyre_pressures WHERE NEW.kilopascals = 0 DO INSTEAD"
    )
    query(database.url, f"{rule} NOTHING")
    rows = [measured(5, vehicle_id=f"v{i}") for i in range(copies)]
    assert fleet.load("a.json", pressures(*rows, measured(6, 0))).counts.rejected == 1
    refused = "SELECT path, reason FROM mobileye_data.open_rejects"
    assert fleet.rows(refused) == [(f"$.tyre_pressures[{copies}]", "refused")]
    assert fleet.verify() == ADDS_UP


def test_its_rows_in_the_other_partition_are_brought_home(fleet: Fleet, database: Database) -> None:
    insert = "INSERT INTO mobileye_data.tyre_pressures_other VALUES ('v1', '2022-06-05 12:00Z', 240, NULL, 1)"
    query(database.url, insert)
    made: list[Event] = []
    with Housekeeping(lambda: fleet.database, made.append, tables=fleet.known.tables):
        until(lambda: made)
    assert made == [PartitionMade("tyre_pressures", "2022-06-05")]


def test_a_failed_file_of_it_is_checked_and_replayed(fleet: Fleet) -> None:
    name = "tyre_pressures_1.json"
    assert fleet.load(name, statuses()).state == "failed"
    (fleet.settings.failed / name).write_bytes(pressures(measured(5)))
    lines: list[str] = []
    for command in (check.run, replay.files):
        run_it: Callable[..., int] = command
        paths = [str(fleet.settings.failed / name)]
        assert run_it(fleet.settings, fleet.database, paths, lines.append, fleet.known) == 0
    counted = "1 = 1 inserted + 0 duplicate + 0 rejected (tyre_pressures)"
    assert lines == [
        f"{fleet.settings.failed / name}: would load, {counted}",
        f"{name}: loaded, {counted}",
        "1 file: 1 loaded, 0 not",
    ]
    assert fleet.verify() == ADDS_UP


def test_the_others_are_loaded_as_before_and_nothing_of_the_project_was_changed(fleet: Fleet) -> None:
    assert fleet.load("vehicles_status_1.json", statuses()).kind == "vehicles_status"
    reason = fleet.load("x.json", b'{"y": []}').reason
    keys = "objects_detection_events, vehicle_status, tyre_pressures"
    assert reason == f"expected one of the top-level keys {keys}, got 'y'"
    assert list(KINDS) == list(TABLES) == ["objects_detection", "vehicles_status"]
