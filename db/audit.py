"""The queries of verify: they find where ledger and tables do not add up."""

from collections.abc import Iterator, Sequence

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from db.tables import DETECTIONS, TABLES, Table, Tables


def begin(connection: Connection) -> None:
    """Takes one snapshot for all questions, so that a running daemon does not disturb them."""
    connection.set_session(isolation_level="REPEATABLE READ", readonly=True)


def wrong_rows(cursor: Cursor, tables: Tables = TABLES) -> Iterator[str]:
    """Files whose rows are not as many as their ledger entry says."""
    all_rows = " UNION ALL ".join(f"SELECT file_id FROM {table.full_name}" for table in tables.values())
    cursor.execute(
        f"""
        WITH stored AS (
            SELECT file_id, count(*) AS rows
            FROM ({all_rows}) AS all_rows
            GROUP BY file_id
        )
        SELECT file_id, f.name, f.rows_inserted, coalesce(s.rows, 0)
        FROM mobileye_data.ingested_files f
        FULL JOIN stored s USING (file_id)
        WHERE f.rows_inserted IS DISTINCT FROM coalesce(s.rows, 0)
        ORDER BY file_id
        """
    )
    for file_id, name, loaded, stored in cursor:
        if name is None:
            yield f"file {file_id}: {stored:,} rows, but it is not in the ledger"
        elif stored < loaded:
            yield (
                f"file {file_id} ({name}): {stored:,} rows, {loaded:,} were loaded; "
                "fewer rows than loaded: was a partition dropped?"
            )
        else:
            yield f"file {file_id} ({name}): {stored:,} rows, but {loaded:,} were loaded"


def wrong_rejects(cursor: Cursor) -> Iterator[str]:
    """Files whose rejected records are not as many as their ledger entry says."""
    cursor.execute(
        """
        WITH stored AS (
            SELECT file_id, count(*) AS records
            FROM mobileye_data.rejected_records
            GROUP BY file_id
        )
        SELECT file_id, f.name, f.rows_rejected, coalesce(s.records, 0)
        FROM mobileye_data.ingested_files f
        FULL JOIN stored s USING (file_id)
        WHERE f.rows_rejected IS DISTINCT FROM coalesce(s.records, 0)
        ORDER BY file_id
        """
    )
    for file_id, name, rejected, stored in cursor:
        if name is None:
            yield f"file {file_id}: {stored:,} rejected records, but it is not in the ledger"
        else:
            yield f"file {file_id} ({name}): {stored:,} rejected records, but {rejected:,} were rejected"


def wrong_latest(cursor: Cursor, tables: Tables = TABLES) -> Iterator[str]:
    """Vehicles whose latest status is not the newest of their history."""
    for table in tables.values():
        if table.has_latest:
            yield from _wrong_latest(cursor, table)


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
        yield (
            f"{day}: detections_hourly has {detections:,} detections of {objects:,} objects for hours with "
            f"{rows:,} of {values:,}; was a partition dropped? select mobileye_data.recount_hours('{day}')"
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
