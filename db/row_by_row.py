"""Rows one by one, each in a subtransaction of the server's: which of them it refuses, and what it says."""

from collections.abc import Sequence

from msgspec import json
from psycopg2.extensions import connection as Connection

from db.chunk import Chunk
from db.connection import MAX_MESSAGE, ROW_CLASSES, savepoint
from db.days import Span, spans_of, within
from db.insert import LEFT_OUT
from db.tables import Table

#: The index of a row that is not inserted; "duplicate", "conflict" or "refused"; what is stored, or was said.
Verdict = tuple[int, str, str]


def insert_singly(
    connection: Connection,
    chunk: Chunk,
    rows: Sequence[int],
    *,
    shows_status: bool,
    is_ruled: bool,
) -> list[Verdict]:
    """Rows of different keys; with shows_status a report becomes its vehicle's latest, too, or is refused.

    Raises RowRefused, and inserts none of them, if one is refused in a way that PL/pgSQL can't catch.
    """
    table = chunk.table
    found = [table.row(record, entry.file_id) for entry, record in chunk.of(rows)]
    given = [dict(zip(table.columns, row, strict=True)) for row in found]
    # All in one parameter, as text: a temporary table for them, emptied hundreds of times in a transaction,
    # makes each of the subtransactions slower than the one before.
    values = {"rows": json.encode(given).decode()}
    with savepoint(connection) as cursor:
        spans = spans_of(row[1] for row in found)
        cursor.execute(_block(table, spans, shows_status=shows_status, is_ruled=is_ruled), values)
        ((verdicts,),) = cursor.fetchall()
    return [(rows[place], reason, said) for place, reason, said in json.decode(verdicts, type=list[Verdict])]


def _block(table: Table, spans: Sequence[Span], *, shows_status: bool, is_ruled: bool) -> str:
    """Returns the statement that inserts the rows one by one and selects the verdicts."""
    # A DO block returns nothing, hence the setting; a function would leave its traces in the catalogues.
    where = " AND ".join(f"old.{column} = new.{column}" for column in table.key)
    time = table.key[1]
    order = f"{time} DESC" if shows_status else "place"
    values = [f"new.{column}" + "::jsonb" * (column == "extra") for column in table.columns]
    mine = ", ".join(f"{value} AS {column}" for value, column in zip(values, table.columns, strict=True))
    there = (
        f"FROM {table.full_name} old CROSS JOIN (SELECT {mine}) mine "
        f"WHERE {where} AND ({within(spans, f'old.{time}')})"
    )
    return f"""
        DO $block$
        {_VARIABLES}
        BEGIN
            FOR new IN
                SELECT row_number() OVER () - 1 AS place, given.*
                FROM json_to_recordset(%(rows)s) AS given ({_typed(table)})
                ORDER BY {order}
            LOOP
                BEGIN
                    {_insert(table, values, there if is_ruled else None)}
                    {_SHOW_STATUS * shows_status}
                EXCEPTION WHEN OTHERS OR assert_failure THEN
                    {_handler(table, there)}
                END;
            END LOOP;
            PERFORM set_config('mobileye_data.verdicts', array_to_json(verdicts)::text, true);
        END
        $block$;
        SELECT current_setting('mobileye_data.verdicts')
        """


_VARIABLES = """DECLARE
            new record;
            stored text;
            taken bigint;
            state text;
            message text;
            context text;
            verdicts json[] := '{}';"""


def _insert(table: Table, values: Sequence[str], there: str | None) -> str:
    """Returns the part of the block that inserts a row, and checks with `there` that no rule took it away."""
    return f"""
                    INSERT INTO {table.full_name} ({table.list_columns()}) VALUES ({", ".join(values)});
                    GET DIAGNOSTICS taken = ROW_COUNT;
                    IF taken = 0 {f"OR NOT EXISTS (SELECT {there})" if there else ""} THEN
                        RAISE triggered_action_exception USING MESSAGE = '{table.full_name}: {LEFT_OUT}';
                    END IF;
        """


def _handler(table: Table, there: str) -> str:
    """Returns the part of the block that notes why a row is not inserted, or raises the error again."""
    classes = ", ".join(f"'{sqlstate}'" for sqlstate in ROW_CLASSES)
    return f"""
                    GET STACKED DIAGNOSTICS
                        state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, context = PG_EXCEPTION_CONTEXT;
                    -- RAISE takes any SQLSTATE; of all others these name the row.
                    IF left(state, 2) NOT IN ({classes}) AND split_part(context, E'\\n', 1) !~ 'RAISE$' THEN
                        RAISE;
                    END IF;
                    stored := NULL;
                    IF state = '23505' THEN  -- another process has written it since it was asked for
                        SELECT coalesce({table.difference("mine", "old")}, '') INTO stored
                        {there};
                    END IF;
                    verdicts := array_append(verdicts, json_build_array(
                        new.place,
                        CASE coalesce(stored, '-')
                            WHEN '-' THEN 'refused' WHEN '' THEN 'duplicate' ELSE 'conflict' END,
                        coalesce(stored, nullif(left(split_part(message, E'\\n', 1), {MAX_MESSAGE}), ''),
                                 'it gives no reason but SQLSTATE ' || state)));
        """


def _typed(table: Table) -> str:
    """The columns as they are given: a value that is no jsonb must be found out row by row."""
    types = {table.key[1]: "timestamptz", "object_value": "integer", "file_id": "bigint"}
    return ", ".join(f"{column} {types.get(column, 'text')}" for column in table.columns)


#: The newest come first, so that vehicle_status is shown no more reports than it is without this.
_SHOW_STATUS = """
                    IF NOT EXISTS (
                        SELECT FROM mobileye_data.vehicle_status known
                        WHERE known.vehicle_id = new.vehicle_id AND known.report_time >= new.report_time
                    ) THEN
                        INSERT INTO mobileye_data.vehicle_status AS old
                            (vehicle_id, report_time, status, extra, file_id)
                            VALUES (new.vehicle_id, new.report_time, new.status, new.extra::jsonb,
                                    new.file_id)
                            ON CONFLICT (vehicle_id) DO UPDATE SET
                                report_time = excluded.report_time,
                                status = excluded.status,
                                extra = excluded.extra,
                                file_id = excluded.file_id
                            WHERE old.report_time < excluded.report_time;
                    END IF;
"""
