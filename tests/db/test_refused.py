"""What a user has added to our tables refuses rows: each costs its own record, and no other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

import db.chunk
import db.conflicts
import db.connection
import db.row_by_row
import db.writer
import processing.loader
from db.connection import Database
from processing.sink import Counts
from tests.db.loading import counts
from tests.processing.loading import Drops
from tests.support import detections, event, report, statuses

#: Records in a file, and the way they go.
SIZES = {5: "a few", 1200: "more rows than are looked at one by one"}

D, S = "objects_detection_", "vehicles_status_"
EVENTS, HISTORY, STATUS = "objects_detection_events", "vehicle_status_history", "vehicle_status"


@pytest.fixture
def drops(tmp_path: Path, database: Database) -> Iterator[Drops]:
    drops = Drops(tmp_path, database)
    yield drops
    drops.sink.close()


@pytest.fixture(params=SIZES, ids=list(SIZES.values()))
def size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def add_trigger(drops: Drops, table: str, body: str, when: str = "BEFORE INSERT") -> None:
    """For each row; NEW.vehicle_id of those to be refused is "bad"."""
    drops.rows(
        f"""
        CREATE FUNCTION public.judge_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN {body} RETURN NEW; END
        $$;
        CREATE TRIGGER judge {when} ON mobileye_data.{table}
            FOR EACH ROW EXECUTE FUNCTION public.judge_{table}()
        """
    )


def raising(condition: str, code: str = "P0001", message: str = "not in the fleet") -> str:
    return f"IF {condition} THEN RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = E'{message}'; END IF;"


BAD = "NEW.vehicle_id = 'bad'"


def reports_of(size: int, bad: list[int]) -> list[dict[str, Any]]:
    vehicles = ["bad" if i in bad else f"car-{i // 3600}" for i in range(size)]
    return [report(i % 3600, vehicle=vehicle, status="parking") for i, vehicle in enumerate(vehicles)]


def check_refused(drops: Drops, size: int, detail: str, document: str = "statuses") -> None:
    """Of this many records the first, the last and one between are refused, and the others inserted."""
    bad = [0, size // 2, size - 1]
    reports = reports_of(size, bad)
    content = statuses(*reports)
    table, prefix = HISTORY, S
    if document == "detections":
        content = detections(
            *[event(i % 3600, ("cars", i), vehicle=reports[i]["vehicle_id"]) for i in range(size)]
        )
        table, prefix = EVENTS, D
    outcome = drops.load_one(f"{prefix}1.json", content)
    assert (outcome.state, outcome.counts) == ("loaded", Counts(size, size - 3, 0, 3, refused=3)), (
        outcome.reason
    )
    assert drops.count(table) == size - 3
    found = drops.rows("SELECT position, reason, detail FROM rejected_records ORDER BY 1")
    assert [(position, reason) for position, reason, _ in found] == [(place, "refused") for place in bad]
    assert {said for _, _, said in found} == {detail}
    assert drops.load_one(f"{prefix}2.json", content + b" ").counts == Counts(size, 0, size - 3, 3, refused=3)


@pytest.mark.parametrize("document", ["statuses", "detections"])
def test_a_row_at_which_a_trigger_raises_is_refused_with_its_words(
    drops: Drops, size: int, document: str
) -> None:
    add_trigger(drops, HISTORY if document == "statuses" else EVENTS, raising(BAD))
    check_refused(drops, size, "not in the fleet", document)


#: Whatever they mean where the server itself says them. 57014 PL/pgSQL can't catch without its being named.
CODES = ["40001", "40P01", "53100", "57014", "57P01", "42501", "42P01", "28000", "08006", "25006", "23505",
         "23514", "22000", "55P03", "XX000", "MY001"]  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_a_trigger_may_choose_any_sqlstate(drops: Drops, code: str) -> None:
    add_trigger(drops, HISTORY, raising(BAD, code))
    check_refused(drops, 150, "not in the fleet")


FAULTS = {
    "division": ("PERFORM 1 / 0;", "division by zero"),
    "no row": ("DECLARE x text; BEGIN SELECT 'y' INTO STRICT x WHERE false; END;", "query returned no rows"),
    "assertion": ("ASSERT false, 'not so';", "not so"),
    "case": ("CASE 1 WHEN 2 THEN NULL; END CASE;", "case not found"),
    "two rows": ("PERFORM (SELECT 1 FROM generate_series(1, 2));",
                 "more than one row returned by a subquery used as an expression"),
    "no words": ("RAISE EXCEPTION '';", "it gives no reason but SQLSTATE P0001"),
    "many lines": ("RAISE EXCEPTION E'one\\ntwo';", "one"),
    "many words": ("RAISE EXCEPTION '%', repeat('x', 100000);", "x" * 500),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_within_a_trigger_refuses_the_row(drops: Drops, fault: str) -> None:
    body, detail = FAULTS[fault]
    add_trigger(drops, HISTORY, f"IF {BAD} THEN {body} END IF;")
    check_refused(drops, 150, detail)


FLEET = "CREATE TABLE public.fleet (vehicle_id text PRIMARY KEY); INSERT INTO public.fleet VALUES ('car-0');"
FOREIGN = "FOREIGN KEY (vehicle_id) REFERENCES public.fleet"


@pytest.mark.parametrize("deferred", ["", " DEFERRABLE INITIALLY DEFERRED"], ids=["at once", "deferred"])
def test_a_foreign_key_refuses_the_row_that_has_no_counterpart(
    drops: Drops, size: int, deferred: str
) -> None:
    drops.rows(f"{FLEET} ALTER TABLE {HISTORY} ADD CONSTRAINT known {FOREIGN}{deferred}")
    ((partition,),) = drops.rows("SELECT add_partition('vehicle_status_history', '2022-05-05')")
    assert partition
    name = "vehicle_status_history_20220505"
    check_refused(drops, size, f'insert or update on table "{name}" violates foreign key constraint "known"')


def test_a_trigger_that_waits_for_the_end_of_the_transaction_refuses_its_row(drops: Drops, size: int) -> None:
    drops.rows("SELECT add_partition('vehicle_status_history', '2022-05-05')")
    drops.rows(
        f"""
        CREATE FUNCTION public.late() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN {raising(BAD)} RETURN NULL; END
        $$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON {HISTORY}_20220505 DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION public.late()
        """
    )
    check_refused(drops, size, "not in the fleet")


def test_a_row_that_a_trigger_leaves_out_is_refused(drops: Drops, size: int) -> None:
    add_trigger(drops, HISTORY, f"IF {BAD} THEN RETURN NULL; END IF;")
    check_refused(drops, size, "mobileye_data.vehicle_status_history: a trigger or a rule leaves rows out")


def test_a_unique_index_of_the_users_refuses_a_row_whose_key_is_new(drops: Drops, size: int) -> None:
    """It is not retried for ever as a key that another process has written."""
    drops.rows("SELECT add_partition('vehicle_status_history', '2022-05-05')")
    index = f"CREATE UNIQUE INDEX only_one ON {HISTORY}_20220505 ((1)) WHERE vehicle_id = 'bad'"
    drops.rows(f"INSERT INTO {HISTORY} VALUES ('bad', '2022-05-05 23:00:00Z', 'x', NULL, 1); {index}")
    bad = [0, size // 2, size - 1]
    outcome = drops.load_one(f"{S}1.json", statuses(*reports_of(size, bad)))
    assert outcome.counts == Counts(size, size - 3, 0, 3, refused=3)
    details = drops.values("SELECT DISTINCT detail FROM rejected_records")
    assert details == ['duplicate key value violates unique constraint "only_one"']


def test_keys_that_a_trigger_makes_the_same_are_refused_but_for_the_first(drops: Drops, size: int) -> None:
    add_trigger(drops, HISTORY, "NEW.report_time := date_trunc('day', NEW.report_time);")
    outcome = drops.load_one(f"{S}1.json", statuses(*reports_of(size, [])))
    vehicles = len({each["vehicle_id"] for each in reports_of(size, [])})
    refused = size - vehicles
    assert outcome.counts == Counts(size, vehicles, 0, refused, refused=refused)
    assert drops.count(HISTORY) == vehicles


# What it costs ---------------------------------------------------------------------------------------


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One for each savepoint, which stands for all that is sent with it."""
    taken: list[object] = []
    savepoint = db.connection.savepoint

    def counted(connection: Connection) -> object:
        taken.append(connection)
        return savepoint(connection)

    for module in (db.conflicts, db.row_by_row, db.writer):
        monkeypatch.setattr(module, "savepoint", counted)
    return taken


@pytest.mark.parametrize(("refused", "most"), [(1, 30), (4, 100), (20_000, 200)])
def test_steps_grow_with_the_refused_rows_and_the_logarithm_of_all(
    drops: Drops, steps: list[object], refused: int, most: int
) -> None:
    """Halving down to each row would take 15 steps for each of a few rows, and 40,000 for all."""
    size = 20_000
    add_trigger(drops, EVENTS, raising(f"NEW.object_value % {size // refused} = 0"))
    content = detections(*[event(i % 3600, ("cars", i), vehicle=f"car-{i // 3600}") for i in range(size)])
    outcomes = drops.load_until_done({f"{D}1.json": content})
    assert [outcome.counts for outcome in outcomes] == [
        Counts(size, size - refused, 0, refused, refused=refused)
    ]
    assert len(steps) <= most


# Rules ---------------------------------------------------------------------------------------------

INSTEAD = {"nothing": "NOTHING", "elsewhere": "INSERT INTO public.elsewhere VALUES (NEW.*)"}


@pytest.mark.parametrize("instead", INSTEAD)
def test_a_row_that_a_rule_takes_away_is_refused_however_many_come(
    drops: Drops, size: int, instead: str
) -> None:
    """COPY ignores rules: without care the size of a file would decide."""
    drops.rows(f"CREATE TABLE public.elsewhere (LIKE {HISTORY})")
    drops.rows(f"CREATE RULE away AS ON INSERT TO {HISTORY} WHERE {BAD} DO INSTEAD {INSTEAD[instead]}")
    check_refused(drops, size, "mobileye_data.vehicle_status_history: a trigger or a rule leaves rows out")
    assert drops.values("SELECT count(*) FROM public.elsewhere") == [0]


def test_a_rule_that_does_more_is_asked_for_each_row(drops: Drops, size: int) -> None:
    drops.rows("CREATE TABLE public.seen (vehicle_id text, status text)")
    also = "INSERT INTO public.seen VALUES (NEW.vehicle_id, NEW.status)"
    drops.rows(f"CREATE RULE also AS ON INSERT TO {HISTORY} DO ALSO {also}")
    assert drops.load_one(f"{S}1.json", statuses(*reports_of(size, []))).counts == Counts(size, size, 0, 0)
    assert drops.values("SELECT count(*) FROM public.seen") == [size]


# The latest status ---------------------------------------------------------------------------------


@pytest.mark.parametrize("deferred", [False, True], ids=["at once", "deferred"])
def test_a_report_that_vehicle_status_refuses_is_in_neither_table(
    drops: Drops, size: int, deferred: bool
) -> None:
    if deferred:
        drops.rows(
            f"{FLEET} ALTER TABLE {STATUS} ADD CONSTRAINT known {FOREIGN} DEFERRABLE INITIALLY DEFERRED"
        )
    else:
        add_trigger(drops, STATUS, raising(BAD, "53100"))
    detail = f'insert or update on table "{STATUS}" violates foreign key constraint "known"'
    check_refused(drops, size, detail if deferred else "not in the fleet")
    assert drops.values(f"SELECT vehicle_id FROM {STATUS}") == ["car-0"]
    newest = "SELECT vehicle_id, report_time, status, file_id FROM"
    (stored,) = drops.rows(f"{newest} {STATUS}")
    assert stored == drops.rows(f"{newest} {HISTORY} ORDER BY report_time DESC LIMIT 1")[0]


def test_a_rule_on_vehicle_status_refuses_every_report(drops: Drops) -> None:
    drops.rows(f"CREATE RULE never AS ON UPDATE TO {STATUS} DO INSTEAD NOTHING")
    files = {f"{S}1.json": statuses(report(1), report(2)), f"{D}1.json": detections(event())}
    outcomes = drops.load_named(files)
    assert [outcome.counts for outcome in outcomes] == [
        Counts(2, 0, 0, 2, refused=2),
        Counts(2, 2, 0, 0),
    ]
    (detail,) = drops.values("SELECT DISTINCT detail FROM rejected_records")
    assert detail.startswith("INSERT with ON CONFLICT clause cannot be used with table that has")


def test_only_the_report_that_would_be_the_latest_is_refused(drops: Drops, size: int) -> None:
    """vehicle_status gets only the newest report, as it does without a refusal."""
    add_trigger(drops, STATUS, raising("NEW.status = 'accident'"))
    reports = [report(i % 3600, "accident" if i in (1, size - 1) else "parking") for i in range(size)]
    outcome = drops.load_one(f"{S}1.json", statuses(*reports))
    assert outcome.counts == Counts(size, size - 1, 0, 1, refused=1)
    assert drops.values("SELECT position FROM rejected_records") == [size - 1]
    assert drops.count(HISTORY) == size - 1


@pytest.mark.usefixtures("small_chunks")
def test_reports_are_shown_in_bulk_again_once_none_is_refused(drops: Drops) -> None:
    add_trigger(drops, STATUS, raising(BAD))
    drops.load_one(f"{S}1.json", statuses(report(vehicle="bad")))
    assert drops.sink._met.status_refuses
    assert drops.load_one(f"{S}2.json", statuses(report(1))).counts == Counts(1, 1, 0, 0)
    assert not drops.sink._met.status_refuses
    assert drops.count(STATUS) == 1


# The other tables -----------------------------------------------------------------------------------

GOOD, MIXED = statuses(report(1)), statuses(report(2), {})


def test_a_file_whose_reject_is_refused_fails_alone(drops: Drops) -> None:
    add_trigger(drops, "rejected_records", "RAISE 'no rejects';")
    files = {f"{S}good.json": GOOD, f"{S}mixed.json": MIXED, f"{D}good.json": detections(event())}
    outcomes = {outcome.name: outcome for outcome in drops.load_until_done(files)}
    bad = outcomes.pop(f"{S}mixed.json")
    assert (bad.state, bad.counts, bad.reason) == (
        "failed", Counts(), "the table of rejected records refuses one: no rejects"
    )  # fmt: skip
    assert {outcome.state for outcome in outcomes.values()} == {"loaded"}
    assert counts(drops.database) == {
        EVENTS: 2, HISTORY: 1, STATUS: 1, "ingested_files": 3, "rejected_records": 0
    }  # fmt: skip
    assert drops.left() == []


def test_a_reject_that_a_trigger_leaves_out_is_noticed(drops: Drops) -> None:
    add_trigger(drops, "rejected_records", "RETURN NULL;")
    outcome = drops.load_one(f"{S}1.json", MIXED)
    assert outcome.state == "failed"
    assert outcome.reason.endswith("took 0 of 1 rows: a trigger or a rule leaves rows out")


def test_a_large_file_whose_reject_is_refused_fails_too(
    drops: Drops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing.loader, "MAX_SHARED_BYTES", 1000)
    monkeypatch.setattr(db.chunk, "CHUNK_ROWS", 4)
    add_trigger(drops, "rejected_records", "RAISE 'no rejects';")
    content = statuses({}, *[report(i) for i in range(50)])
    outcome = drops.load_one(f"{S}1.json", content)
    assert (outcome.state, outcome.reason) == (
        "failed",
        "the table of rejected records refuses one: no rejects",
    )
    assert drops.count(HISTORY) == 0


@pytest.mark.parametrize("late", [False, True], ids=["at once", "deferred"])
def test_a_file_that_the_ledger_refuses_fails_alone(drops: Drops, late: bool) -> None:
    body = raising("NEW.name LIKE '%bad%' AND NEW.state = 'loaded'")
    if late:
        add_trigger(drops, "ingested_files", body, "AFTER INSERT")
        drops.rows(
            """
            DROP TRIGGER judge ON ingested_files;
            CREATE CONSTRAINT TRIGGER judge AFTER INSERT ON ingested_files DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION public.judge_ingested_files()
            """
        )
    else:
        add_trigger(drops, "ingested_files", body)
    files = {f"{S}good.json": GOOD, f"{S}bad.json": statuses(report(2)), f"{D}good.json": detections(event())}
    outcomes = {outcome.name: outcome for outcome in drops.load_until_done(files)}
    bad = outcomes.pop(f"{S}bad.json")
    assert (bad.state, bad.reason) == ("failed", "the ledger refuses the file: not in the fleet")
    assert {outcome.state for outcome in outcomes.values()} == {"loaded"}
    assert counts(drops.database) == {
        EVENTS: 2, HISTORY: 1, STATUS: 1, "ingested_files": 3, "rejected_records": 0
    }  # fmt: skip


def test_a_file_that_the_ledger_accepts_neither_way_waits_alone(drops: Drops) -> None:
    add_trigger(drops, "ingested_files", raising("NEW.name LIKE '%bad%'"))
    files = {f"{S}good.json": GOOD, f"{S}bad.json": statuses(report(2)), f"{S}bad2.json": b"[]"}
    outcomes = {outcome.name: outcome for outcome in drops.load_until_done(files)}
    assert {name: outcome.state for name, outcome in outcomes.items()} == {
        f"{S}good.json": "loaded", f"{S}bad.json": "waiting", f"{S}bad2.json": "waiting"
    }  # fmt: skip
    reason = "the ledger refuses the file: not in the fleet"
    assert outcomes[f"{S}bad.json"].reason == f"{reason}; {reason}"
    assert outcomes[f"{S}bad2.json"].reason.endswith(f"got an array; {reason}")
    assert drops.left() == [f"{S}bad.json", f"{S}bad2.json"]
    assert drops.count(HISTORY) == 1


def test_the_same_bytes_again_stay_where_they_are_if_the_ledger_does_not_count_them(drops: Drops) -> None:
    drops.load_one(f"{S}1.json", GOOD)
    add_trigger(drops, "ingested_files", "RAISE 'no changes';", "BEFORE UPDATE")
    outcomes = drops.load_until_done({f"{S}2.json": GOOD, f"{S}3.json": statuses(report(3))})
    assert {outcome.name: outcome.state for outcome in outcomes} == {
        f"{S}2.json": "waiting", f"{S}3.json": "loaded"
    }  # fmt: skip
    assert drops.left() == [f"{S}2.json"]
