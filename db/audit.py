"""The queries of verify: they find where ledger and tables do not add up."""

from collections.abc import Iterator, Sequence

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from db.row_audit import Scope
from db.tables import DETECTIONS, TABLES, Table, Tables
from processing.counted import counted


def begin(connection: Connection) -> None:
    """Takes one snapshot for all questions, so that a running daemon does not disturb them."""
    connection.set_session(isolation_level="REPEATABLE READ", readonly=True)


def wrong_totals(cursor: Cursor) -> Iterator[str]:
    """Totals that are not the sums over the ledger."""
    cursor.execute(
        """
        WITH parts AS (
            SELECT state, files, rows_read, rows_inserted, rows_duplicate, rows_rejected
            FROM mobileye_data.ledger_totals
            UNION ALL
            SELECT state, -1, -rows_read, -rows_inserted, -rows_duplicate, -rows_rejected
            FROM mobileye_data.ingested_files
        )
        SELECT 'files ' || state
        FROM parts
        GROUP BY state
        HAVING (sum(files), sum(rows_read), sum(rows_inserted), sum(rows_duplicate), sum(rows_rejected))
            <> (0, 0, 0, 0, 0)
        UNION ALL
        SELECT 'rejects resolved'
        WHERE (SELECT count(resolved_at) FROM mobileye_data.rejected_records)
           <> (SELECT coalesce(sum(rejects_resolved), 0) FROM mobileye_data.ledger_totals)
        """
    )
    for (what,) in cursor:
        yield (
            f"ledger_totals, {what}: not the sum of the ledger; "
            "select mobileye_data.recount_totals() as the owner adds it up again"
        )


def wrong_rejects(cursor: Cursor, scope: Scope) -> Iterator[str]:
    """Files whose rejected records are not as many as their ledger entry says."""
    cursor.execute(
        """
        WITH stored AS (
            SELECT file_id, count(*) AS records
            FROM mobileye_data.rejected_records
            WHERE file_id >= %(first)s
            GROUP BY file_id
        ), entries AS (
            SELECT file_id, name, rows_rejected FROM mobileye_data.ingested_files WHERE file_id >= %(first)s
        )
        SELECT file_id, f.name, f.rows_rejected, coalesce(s.records, 0)
        FROM entries f
        FULL JOIN stored s USING (file_id)
        WHERE f.rows_rejected IS DISTINCT FROM coalesce(s.records, 0)
        ORDER BY file_id
        """,
        {"first": scope.first},
    )
    for file_id, name, rejected, stored in cursor:
        if name is None:
            yield f"file {file_id}: {counted(stored, 'rejected record')}, but it is not in the ledger"
        else:
            records = counted(stored, "rejected record")
            yield f"file {file_id} ({name}): {records} stored, {rejected:,} in the ledger"


def wrong_latest(cursor: Cursor, tables: Tables, scope: Scope) -> Iterator[str]:
    """Vehicles whose latest status is not the newest of their history; of a scope: is not in it."""
    for table in tables.values():
        if table.has_latest:
            yield from _wrong_latest(cursor, table) if scope.is_all else _lost_latest(cursor, table, scope)


def _lost_latest(cursor: Cursor, table: Table, scope: Scope) -> Iterator[str]:
    name, time = table.latest_name.partition(".")[2], table.key[1]
    columns = " AND ".join(f"s.{column} IS NOT DISTINCT FROM n.{column}" for column in table.columns[2:])
    cursor.execute(
        f"""
        SELECT vehicle_id
        FROM {table.latest_name} s
        WHERE file_id >= %s AND NOT EXISTS (
            SELECT FROM {table.full_name} n
            WHERE n.vehicle_id = s.vehicle_id AND n.{time} = s.{time} AND {columns})
          AND NOT EXISTS (
            SELECT FROM mobileye_data.dropped_rows
            WHERE table_name = '{table.name}' AND day = (s.{time} AT TIME ZONE 'UTC')::date)
        ORDER BY vehicle_id
        """,
        (scope.first,),
    )
    for (vehicle_id,) in cursor:
        yield f"vehicle {vehicle_id}: {name} is not in the history: was a partition dropped?"


def _wrong_latest(cursor: Cursor, table: Table) -> Iterator[str]:
    name, time = table.latest_name.partition(".")[2], table.key[1]
    latest, newest = (", ".join(f"{side}.{column}" for column in table.columns[1:]) for side in "sn")
    cursor.execute(
        f"""
        WITH newest AS (
            SELECT DISTINCT ON (vehicle_id) *
            FROM {table.full_name}
            ORDER BY vehicle_id, {time} DESC
        )
        SELECT vehicle_id, s.vehicle_id IS NULL, coalesce(s.{time} > n.{time}, n.vehicle_id IS NULL)
        FROM {table.latest_name} s
        FULL JOIN newest n USING (vehicle_id)
        WHERE ({latest}) IS DISTINCT FROM ({newest})
          AND NOT EXISTS (    -- the latest status stays when retention drops its day
              SELECT FROM mobileye_data.dropped_rows
              WHERE table_name = '{table.name}' AND day = (s.{time} AT TIME ZONE 'UTC')::date
                AND (n.{time} IS NULL OR n.{time} < s.{time}))
        ORDER BY vehicle_id
        """
    )
    for vehicle_id, is_missing, is_newer in cursor:
        if is_missing:
            yield f"vehicle {vehicle_id}: a history, but no row in {name}"
        elif is_newer:
            yield f"vehicle {vehicle_id}: {name} is newer than the history: was a partition dropped?"
        else:
            yield f"vehicle {vehicle_id}: {name} is not the newest of the history"


def wrong_hours(cursor: Cursor, tables: Tables = TABLES) -> Iterator[str]:
    """Days on which the counts by hour are not those of the rows."""
    if DETECTIONS not in tables.values():
        return
    cursor.execute(
        f"""
        WITH stored AS (
            SELECT date_trunc('hour', detection_time, 'UTC') AS hour, object_type,
                   count(*) AS detections, sum(object_value) AS objects
            FROM {DETECTIONS.full_name}
            GROUP BY 1, 2
        ), counted AS (
            SELECT * FROM mobileye_data.detections_hourly WHERE (detections, objects) <> (0, 0)
        )
        SELECT (hour AT TIME ZONE 'UTC')::date::text,
               coalesce(sum(counted.detections), 0), coalesce(sum(counted.objects), 0),
               coalesce(sum(stored.detections), 0), coalesce(sum(stored.objects), 0)
        FROM stored
        FULL JOIN counted USING (hour, object_type)
        WHERE (counted.detections, counted.objects) IS DISTINCT FROM (stored.detections, stored.objects)
        GROUP BY 1
        ORDER BY 1
        """
    )
    for day, detections, objects, rows, values in cursor:
        has = f"{counted(detections, 'detection')} of {counted(objects, 'object')}"
        yield (
            f"{day}: detections_hourly has {has} for hours with {rows:,} of {values:,}; "
            f"was a partition dropped? select mobileye_data.recount_hours('{day}')"
        )


def states(cursor: Cursor, digests: Sequence[bytes]) -> dict[bytes, str]:
    """The states of those of the digests that the ledger knows."""
    cursor.execute(
        """
        SELECT sha256, state
        FROM mobileye_data.ingested_files
        WHERE sha256 = ANY (%s)
        """,
        (list(digests),),
    )
    return {bytes(digest): state for digest, state in cursor.fetchall()}
