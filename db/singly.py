"""Rows one by one, each in a subtransaction of the server's: which of them it refuses, and what it says."""

from collections.abc import Sequence
from datetime import date

from psycopg2.extensions import connection as Connection

from db.chunk import Chunk
from db.connection import MAX_MESSAGE, ROW_CLASSES, savepoint, translated
from db.insert import LEFT_OUT, copy_into
from db.tables import Table

#: The index of a row that is not inserted; "duplicate", "conflict" or "refused"; what is stored, or was said.
Verdict = tuple[int, str, str]


def insert_singly(
    connection: Connection,
    chunk: Chunk,
    rows: Sequence[int],
    bounds: tuple[date, date | str],
    *,
    shows_status: bool,
) -> list[Verdict]:
    """Rows of different keys; with shows_status a report also becomes the latest of its vehicle, or is refused.

    Raises RowRefused, and inserts none of them, if one is refused in a way that PL/pgSQL can't catch.
    """
    table = chunk.table
    columns = [_RAW if column == "extra" else column for column in table.columns]
    with translated(), connection.cursor() as cursor:
        cursor.execute(_tables(table))  # not to be undone with the savepoint: to make them is dear
    with savepoint(connection) as cursor:
        copy_into(cursor, f"suspects_{table.name}", columns, chunk.data_of(rows), len(rows))
        cursor.execute(_block(table, shows_status=shows_status), bounds)
        return [(rows[place], reason, detail) for place, reason, detail in cursor.fetchall()]


#: The bytes of a jsonb as COPY takes them: a version, then the text. Into jsonb itself COPY would take all or none.
_RAW = "raw_extra"
_EXTRA = f"convert_from(substr(suspect.{_RAW}, 2), 'UTF8')::jsonb AS extra"


def _tables(table: Table) -> str:
    return f"""
        CREATE TEMPORARY TABLE IF NOT EXISTS suspects_{table.name}
            (LIKE {table.full_name} INCLUDING DEFAULTS, {_RAW} bytea,
             place integer GENERATED ALWAYS AS IDENTITY (MINVALUE 0))
            ON COMMIT DELETE ROWS;
        CREATE TEMPORARY TABLE IF NOT EXISTS verdicts
            (place integer, reason text, detail text) ON COMMIT DELETE ROWS;
        TRUNCATE suspects_{table.name}, verdicts RESTART IDENTITY
        """


def _block(table: Table, *, shows_status: bool) -> str:
    """A DO block can't return rows, a function would leave its traces in the catalogues."""
    taken = [_EXTRA if column == "extra" else f"suspect.{column}" for column in table.columns]
    where = " AND ".join(f"old.{column} = new.{column}" for column in table.key)
    time = table.key[1]
    order = f"{time} DESC, place" if shows_status else "place"
    classes = ", ".join(f"'{sqlstate}'" for sqlstate in ROW_CLASSES)
    return f"""
        DO $block$
        DECLARE
            suspect record;
            new record;
            stored text;
            taken bigint;
            state text;
            message text;
            context text;
        BEGIN
            FOR suspect IN SELECT * FROM suspects_{table.name} ORDER BY {order} LOOP
                BEGIN
                    SELECT {", ".join(taken)} INTO new;
                    INSERT INTO {table.full_name} ({table.list_columns()})
                        VALUES ({", ".join(f"new.{column}" for column in table.columns)});
                    GET DIAGNOSTICS taken = ROW_COUNT;
                    IF taken = 0 THEN
                        RAISE triggered_action_exception USING MESSAGE = '{table.full_name}: {LEFT_OUT}';
                    END IF;
                    {_SHOW_STATUS if shows_status else ""}
                EXCEPTION WHEN OTHERS OR assert_failure THEN
                    GET STACKED DIAGNOSTICS
                        state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, context = PG_EXCEPTION_CONTEXT;
                    -- RAISE takes any SQLSTATE; of all others these name the row.
                    IF left(state, 2) NOT IN ({classes}) AND split_part(context, E'\\n', 1) !~ 'RAISE$' THEN
                        RAISE;
                    END IF;
                    IF state = '23505' THEN  -- there already, or since another process has committed it
                        SELECT coalesce({table.difference("new", "old")}, '') INTO stored
                            FROM {table.full_name} old
                            WHERE {where} AND old.{time} >= %s AND old.{time} < %s;
                    ELSE
                        stored := NULL;
                    END IF;
                    INSERT INTO verdicts VALUES (suspect.place,
                        CASE WHEN stored IS NULL THEN 'refused' WHEN stored = '' THEN 'duplicate' ELSE 'conflict' END,
                        coalesce(stored, nullif(left(split_part(message, E'\\n', 1), {MAX_MESSAGE}), ''),
                                 'it gives no reason but SQLSTATE ' || state));
                END;
            END LOOP;
        END
        $block$;
        SELECT place, reason, detail FROM verdicts
        """


#: The newest come first, so that vehicle_status is shown no more reports than it is without this.
_SHOW_STATUS = """
                    IF NOT EXISTS (
                        SELECT FROM mobileye_data.vehicle_status known
                        WHERE known.vehicle_id = new.vehicle_id AND known.report_time >= new.report_time
                    ) THEN
                        INSERT INTO mobileye_data.vehicle_status AS old
                            (vehicle_id, report_time, status, extra, file_id)
                            VALUES (new.vehicle_id, new.report_time, new.status, new.extra, new.file_id)
                            ON CONFLICT (vehicle_id) DO UPDATE SET
                                report_time = excluded.report_time,
                                status = excluded.status,
                                extra = excluded.extra,
                                file_id = excluded.file_id
                            WHERE old.report_time < excluded.report_time;
                    END IF;
"""
