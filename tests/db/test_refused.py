"""What a user has added to our tables refuses rows: each costs its own record, and no other."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

import db.chunk
import db.merge
from db.connection import Database
from processing.batch import Outcome, Work
from processing.sink import Counts
from tests.db.loading import counts
from tests.processing.test_processor import Loader
from tests.support import detections, drop, event, query, report, statuses

#: Records in a file, and the way they go.
SIZES = {5: "execute_values", 150: "COPY", 1200: "COPY, in more rows than are looked at one by one"}

D, S = "objects_detection_", "vehicles_status_"
EVENTS, HISTORY, STATUS = "objects_detection_events", "vehicle_status_history", "vehicle_status"


@pytest.fixture
def loader(tmp_path: Path, database: Database) -> Iterator[Loader]:
    loader = Loader(tmp_path, database)
    yield loader
    loader.sink.close()


@pytest.fixture(params=SIZES, ids=SIZES.values())
def size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def add_trigger(
    loader: Loader, table: str, body: str, when: str = "BEFORE INSERT", kind: str = "TRIGGER"
) -> None:
    """A trigger for each row; NEW.vehicle_id of those to be refused is "bad"."""
    loader.rows(
        f"""
        CREATE FUNCTION public.judge_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN {body} RETURN NEW; END
        $$;
        CREATE {kind} judge {when} ON mobileye_data.{table}
            FOR EACH ROW EXECUTE FUNCTION public.judge_{table}()
        """
    )


def raising(condition: str, code: str = "P0001", message: str = "not in the fleet") -> str:
    return f"IF {condition} THEN RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = E'{message}'; END IF;"


BAD = "NEW.vehicle_id = 'bad'"


def reports_of(size: int, bad: list[int]) -> list[dict[str, Any]]:
    return [
        report(i % 3600, vehicle="bad" if i in bad else f"car-{i // 3600}", status="parking") for i in range(size)
    ]


def check_refused(loader: Loader, size: int, detail: str, document: str = "statuses") -> None:
    """Of so many records the first, the last and one between are refused, and the others inserted."""
    bad = [0, size // 2, size - 1]
    reports = reports_of(size, bad)
    content = statuses(*reports)
    table, prefix = HISTORY, S
    if document == "detections":
        content = detections(
            *[
                event(i % 3600, ("cars", i), vehicle=reports[i]["vehicle_id"]) for i in range(size)
            ]
        )
        table, prefix = EVENTS, D
    outcome = loader.load_one(f"{prefix}1.json", content)
    assert (outcome.state, outcome.counts) == ("loaded", Counts(size, size - 3, 0, 3)), outcome.reason
    assert loader.count(table) == size - 3
    found = loader.rows("SELECT position, reason, detail FROM rejected_records ORDER BY 1")
    assert [(position, reason) for position, reason, _ in found] == [(place, "refused") for place in bad]
    assert {said for _, _, said in found} == {detail}
    assert loader.load_one(f"{prefix}2.json", content + b" ").counts == Counts(size, 0, size - 3, 3)


@pytest.mark.parametrize("document", ["statuses", "detections"])
def test_a_row_at_which_a_trigger_raises_is_refused_with_its_words(
    loader: Loader, size: int, document: str
) -> None:
    add_trigger(loader, HISTORY if document == "statuses" else EVENTS, raising(BAD))
    check_refused(loader, size, "not in the fleet", document)


#: Whatever they mean where the server itself says them. 57014 PL/pgSQL can't catch without its being named.
CODES = ["40001", "40P01", "53100", "57014", "57P01", "42501", "42P01", "28000", "08006", "25006", "23505",
         "23514", "22000", "55P03", "XX000", "MY001"]  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_a_trigger_may_choose_any_sqlstate(loader: Loader, code: str) -> None:
    add_trigger(loader, HISTORY, raising(BAD, code))
    check_refused(loader, 150, "not in the fleet")


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
def test_what_fails_within_a_trigger_is_the_rows_fault(loader: Loader, fault: str) -> None:
    body, detail = FAULTS[fault]
    add_trigger(loader, HISTORY, f"IF {BAD} THEN {body} END IF;")
    check_refused(loader, 150, detail)


FLEET = "CREATE TABLE public.fleet (vehicle_id text PRIMARY KEY); INSERT INTO public.fleet VALUES ('car-0');"
FOREIGN = "FOREIGN KEY (vehicle_id) REFERENCES public.fleet"


@pytest.mark.parametrize("deferred", ["", " DEFERRABLE INITIALLY DEFERRED"], ids=["at once", "deferred"])
def test_a_foreign_key_refuses_the_row_that_has_no_counterpart(
    loader: Loader, size: int, deferred: str
) -> None:
    loader.rows(f"{FLEET} ALTER TABLE {HISTORY} ADD CONSTRAINT known {FOREIGN}{deferred}")
    ((partition,),) = loader.rows("SELECT add_partition('vehicle_status_history', '2022-05-05')")
    assert partition
    name = "vehicle_status_history_20220505"
    check_refused(
        loader, size, f'insert or update on table "{name}" violates foreign key constraint "known"'
    )


def test_a_trigger_that_waits_for_the_end_of_the_transaction_refuses_its_row(
    loader: Loader, size: int
) -> None:
    # On the partition: a constraint trigger on a partitioned table is not to be had in PostgreSQL before 19.
    loader.rows("SELECT add_partition('vehicle_status_history', '2022-05-05')")
    add_trigger(
        loader,
        f"{HISTORY}_20220505",
        raising(BAD),
        "AFTER INSERT",
        "CONSTRAINT TRIGGER judge_late",
    ) if False else None
    loader.rows(
        f"""
        CREATE FUNCTION public.late() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN {raising(BAD)} RETURN NULL; END
        $$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON {HISTORY}_20220505 DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION public.late()
        """
    )
    check_refused(loader, size, "not in the fleet")


def test_a_row_that_a_trigger_leaves_out_is_refused(loader: Loader, size: int) -> None:
    add_trigger(loader, HISTORY, f"IF {BAD} THEN RETURN NULL; END IF;")
    check_refused(
        loader, size, "mobileye_data.vehicle_status_history: a trigger or a rule leaves rows out"
    )


def test_a_unique_index_of_the_users_refuses_a_row_whose_key_is_new(loader: Loader, size: int) -> None:
    """Not for ever "another process has written one of the keys"."""
    loader.rows("SELECT add_partition('vehicle_status_history', '2022-05-05')")
    index = f"CREATE UNIQUE INDEX only_one ON {HISTORY}_20220505 ((1)) WHERE vehicle_id = 'bad'"
    loader.rows(f"INSERT INTO {HISTORY} VALUES ('bad', '2022-05-05 23:00:00Z', 'x', NULL, 1); {index}")
    bad = [0, size // 2, size - 1]
    outcome = loader.load_one(f"{S}1.json", statuses(*reports_of(size, bad)))
    assert outcome.counts == Counts(size, size - 3, 0, 3)
    details = loader.values("SELECT DISTINCT detail FROM rejected_records")
    assert details == ['duplicate key value violates unique constraint "only_one"']


def test_keys_that_a_trigger_makes_the_same_are_refused_but_for_the_first(loader: Loader, size: int) -> None:
    add_trigger(loader, HISTORY, "NEW.report_time := date_trunc('day', NEW.report_time);")
    outcome = loader.load_one(f"{S}1.json", statuses(*reports_of(size, [])))
    vehicles = len({each["vehicle_id"] for each in reports_of(size, [])})
    assert outcome.counts == Counts(size, vehicles, 0, size - vehicles)
    assert loader.count(HISTORY) == vehicles
