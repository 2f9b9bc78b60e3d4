"""Loads with polars: read_json, explode, then write_database through ADBC, which sends a binary COPY."""

from pathlib import Path

import polars as pl

LACKS = "no dedupe, no latest status, no ledger, whole file in memory"


def load(folder: Path, url: str) -> None:
    for path in sorted(folder.iterdir()):
        frame = pl.read_json(path)
        table = (
            "objects_detection_events" if "objects_detection_events" in frame.columns else "vehicle_status"
        )
        rows = frame.explode(table).unnest(table)
        if table == "vehicle_status":
            time, table = "report_time", "vehicle_status_history"
        else:
            time = "detection_time"
            rows = rows.explode("detections").unnest("detections")
            rows = rows.with_columns(pl.col("object_value").cast(pl.Int32))
        rows = rows.with_columns(
            pl.col(time).str.to_datetime(time_unit="us", time_zone="UTC"),
            pl.lit(0, pl.Int64).alias("file_id"),
        )
        rows.write_database(f"mobileye_data.{table}", url, engine="adbc", if_table_exists="append")
        path.unlink()
