"""Loads with DuckDB: read_json over all files of a kind, inserted into the attached PostgreSQL by COPY."""

from pathlib import Path

import duckdb
import duckdb_ext  # the extensions, as a package from PyPI

LACKS = "no dedupe, no latest status, no ledger"

_OBJECT_BYTES = 1_000_000_000


def load(folder: Path, url: str) -> None:
    extensions = f"{duckdb_ext.__path__[0]}/extensions"
    with duckdb.connect(config={"extension_directory": extensions}) as connection:
        connection.execute("LOAD postgres")
        connection.execute(f"ATTACH '{url}' AS target (TYPE postgres)")
        if any(folder.glob("objects_*")):
            connection.execute(
                f"""
                INSERT INTO target.mobileye_data.objects_detection_events
                    (vehicle_id, detection_time, object_type, object_value, file_id)
                SELECT vehicle_id, detection_time::timestamptz, d.object_type, d.object_value, 0
                FROM (
                    SELECT vehicle_id, detection_time, unnest(detections) AS d
                    FROM (
                        SELECT unnest(objects_detection_events, max_depth := 2)
                        FROM read_json('{folder}/objects_*.json', maximum_object_size = {_OBJECT_BYTES})
                    )
                )
                """
            )
        if any(folder.glob("vehicles_*")):
            connection.execute(
                f"""
                INSERT INTO target.mobileye_data.vehicle_status_history
                    (vehicle_id, report_time, status, file_id)
                SELECT vehicle_id, report_time::timestamptz, status, 0
                FROM (
                    SELECT unnest(vehicle_status, max_depth := 2)
                    FROM read_json('{folder}/vehicles_*.json', maximum_object_size = {_OBJECT_BYTES})
                )
                """
            )
    for path in folder.iterdir():
        path.unlink()
