"""The rows that are stored under the keys of records."""

from collections.abc import Sequence

from msgspec import Raw, Struct, json
from psycopg2.extensions import cursor as Cursor

from db.copy_format import in_utc
from db.tables import Table
from processing.records import Record


class StoredRow(Struct, frozen=True):
    """The row of a record's key: the file that brought it, and whether its value is the record's."""

    file_id: int
    file: str
    is_equal: bool


#: In place of a row that retention has dropped with its day.
DROPPED = StoredRow(0, "", True)


def find_rows(cursor: Cursor, table: Table, records: Sequence[Record]) -> list[StoredRow | None]:
    """Returns for each record, all of one table, the row of its key, if there is one, or DROPPED."""
    if not records:
        return []
    where = " AND ".join(f"stored.{column} = asked.{column}" for column in table.key)
    asked, stored = (", ".join(f"{side}.{column}" for column in table.value) for side in ("asked", "stored"))
    times = [in_utc(table.time(record)) for record in records]
    # LATERAL, LIMIT: each row by the index; a join by hash would read whole partitions. The first and the
    # last time: partitions of other days are not even locked.
    cursor.execute(
        f"""
        SELECT found.file_id, coalesce(f.name, ''), found.is_equal,
               found.file_id IS NULL AND EXISTS (
                   SELECT FROM mobileye_data.dropped_rows
                   WHERE table_name = '{table.name}'
                     AND day = (asked.{table.key[1]} AT TIME ZONE 'UTC')::date)
        FROM json_populate_recordset(NULL::{table.full_name}, %s) WITH ORDINALITY
            AS asked ({table.list_columns()}, place)
        LEFT JOIN LATERAL (
            SELECT stored.file_id, ({asked}) IS NOT DISTINCT FROM ({stored}) AS is_equal
            FROM {table.full_name} stored
            WHERE {where} AND stored.{table.key[1]} BETWEEN %s AND %s
            LIMIT 1
        ) found ON true
        LEFT JOIN mobileye_data.ingested_files f ON f.file_id = found.file_id
        ORDER BY place
        """,
        (json.encode([_fields(table, record) for record in records]).decode(), min(times), max(times)),
    )
    return [_found(*row) for row in cursor.fetchall()]


def _found(file_id: int | None, file: str, is_equal: bool, is_dropped: bool) -> StoredRow | None:
    if file_id is None:
        return DROPPED if is_dropped else None
    return StoredRow(file_id, file, is_equal)


def _fields(table: Table, record: Record) -> dict[str, object]:
    fields: dict[str, object] = dict(zip(table.columns, table.row(record, 0), strict=True))
    if isinstance(extra := fields["extra"], str):
        fields["extra"] = Raw(extra.encode())
    return fields
