"""Inserts rows one by one, each in a subtransaction of the server, to learn which it refuses and why."""

from collections.abc import Sequence

from msgspec import json
from psycopg2.extensions import connection as Connection

from db.chunk import Chunk
from db.connection import MAX_MESSAGE, ROW_CLASSES, savepoint
from db.days import Span, spans_of, within
from db.insert import LEFT_OUT
from db.latest_status import if_newer
from db.tables import Table

#: The index of a row that is not inserted, "duplicate", "conflict" or "refused", the value or reason.
Verdict = tuple[int, str, str]


def insert_singly(
    connection: Connection,
    chunk: Chunk,
    rows: Sequence[int],
    *,
    shows_status: bool,
    is_ruled: bool,
) -> list[Verdict]:
    """Inserts rows with different keys; with shows_status each also becomes its vehicle's latest.

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
    values = [f"new.{column}" + "::jsonb" * (column == "extra") for column in table.columns]
    there = _stored(table, spans, values)
    # The newest first, so that the latest table is given no more rows than on the fast path.
    order = f"{table.key[1]} DESC" if shows_status else "place"
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
                    {_insert_latest(table, values) if shows_status else ""}
                {_handle_refusal(table, there)}
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


def _stored(table: Table, spans: Sequence[Span], values: Sequence[str]) -> str:
    """The row with the key of the new one, and the new one by the name of mine."""
    mine = ", ".join(f"{value} AS {column}" for value, column in zip(values, table.columns, strict=True))
    where = " AND ".join(f"old.{column} = new.{column}" for column in table.key)
    return (
        f"FROM {table.full_name} old CROSS JOIN (SELECT {mine}) mine "
        f"WHERE {where} AND ({within(spans, f'old.{table.key[1]}')})"
    )


def _handle_refusal(table: Table, there: str) -> str:
    """The verdict on a row that was not inserted."""
    classes = ", ".join(f"'{sqlstate}'" for sqlstate in ROW_CLASSES)
    return f"""
                EXCEPTION WHEN OTHERS OR assert_failure THEN
                    GET STACKED DIAGNOSTICS
                        state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, context = PG_EXCEPTION_CONTEXT;
                    -- RAISE takes any SQLSTATE; of all others these name the row.
                    IF left(state, 2) NOT IN ({classes}) AND split_part(context, E'\\n', 1) !~ 'RAISE$' THEN
                        RAISE;
                    END IF;
                    stored := NULL;
                    IF state = '23505' THEN  -- another process has written it since the look at the table
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
    """The columns as given: extra as text, since a value that is no jsonb must be found row by row."""
    return ", ".join(f"{column} {type_.replace('jsonb', 'text')}" for column, type_ in table.types.items())


def _insert_latest(table: Table, values: Sequence[str]) -> str:
    return f"""
                    IF NOT EXISTS (
                        SELECT FROM {table.latest_name} known
                        WHERE known.vehicle_id = new.vehicle_id
                          AND known.{table.key[1]} >= new.{table.key[1]}
                    ) THEN
                        INSERT INTO {table.latest_name} AS old ({table.list_columns()})
                        VALUES ({", ".join(values)})
                        {if_newer(table)};
                    END IF;
    """
