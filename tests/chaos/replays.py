"""Injects faults into the replays at any of their system calls; another replay must repair everything."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.kills import TABLES, KillRig
from tests.chaos.nursery import MAIN, Ended, Held
from tests.support import detections, event, report, statuses

_KINDS = ("pedestrians", "cars", "trucks", "signs", "obstacles")

_GOOD = detections(*(event(i) for i in range(10)))


class ReplayRig(KillRig):
    """Failed files and rejected records, most of them fixed, for replay failed and then replay rejected."""

    @property
    def _saved(self) -> Path:
        return self.folder.with_suffix(".saved")

    def dropped(self) -> Iterator[tuple[str, bytes]]:
        yield "objects_detection_0.json", _GOOD
        yield "objects_detection_1.json", detections({"no": "event"}, event(0, ("cars", 7)), event(20))
        yield "vehicles_status_1.json", statuses(report(1), report(1, "parking"), report(2))
        # Files of one record, each in conflict with another: the replay's document has their very bytes.
        yield "vehicles_status_0.json", statuses(report(7))
        yield "vehicles_status_3.json", statuses(report(7, "parking"))
        yield "objects_detection_2.json", detections(event(30, ("cars", 2)))
        yield "objects_detection_3.json", detections(event(30, ("cars", 7)))
        # More rejected records than fit a page of the replay.
        yield "vehicles_status_2.json", statuses(*(report(i, status=1) for i in range(100, 305)))  # type: ignore[arg-type]
        for i, name in enumerate(_fixed_files()):
            yield name, f"[{i}]".encode()

    def prepare(self) -> None:
        super().reset()
        self._without_faults(super()._held())
        for name, content in _fixed_files().items():
            (self.folder / "failed" / name).write_bytes(content)
        self._fix_records()
        self.save()

    def save(self) -> None:
        """Saves folder and tables, which each run begins with."""
        shutil.rmtree(self._saved, ignore_errors=True)
        shutil.copytree(self.folder, self._saved)
        self.query("DROP SCHEMA IF EXISTS saved CASCADE; CREATE SCHEMA saved")
        for table in TABLES:
            self.query(f"CREATE TABLE saved.{table} AS TABLE mobileye_data.{table}")

    def reset(self) -> None:
        super().reset()
        shutil.rmtree(self.folder)
        shutil.copytree(self._saved, self.folder)
        for table in TABLES:
            self.query(f"INSERT INTO mobileye_data.{table} SELECT * FROM saved.{table}")

    def restart(self) -> Ended:
        """Runs both replays again, then the ingest."""
        ended = super().restart()
        return super()._held().run() if ended.code == 0 else ended

    def torn(self) -> int:
        """Counts torn rows, and records that are resolved without all their rows or their ledger entry."""
        ((count,),) = self.query(
            """
            SELECT count(*)
            FROM (SELECT *, coalesce(edited, original)::jsonb AS text FROM mobileye_data.rejected_records) r
            LEFT JOIN mobileye_data.ingested_files e ON e.file_id = r.resolved_by AND e.state = 'loaded'
            WHERE (r.resolved_at IS NULL) <> (e.file_id IS NULL)
               OR r.resolved_at IS NOT NULL AND text ? 'report_time' AND NOT EXISTS (
                  SELECT FROM mobileye_data.vehicle_status_history
                  WHERE vehicle_id = text->>'vehicle_id' AND status = text->>'status'
                    AND report_time = (text->>'report_time')::timestamptz)
               OR r.resolved_at IS NOT NULL AND text ? 'detection_time' AND EXISTS (
                  SELECT FROM jsonb_array_elements(text->'detections') AS one
                  WHERE NOT EXISTS (
                      SELECT FROM mobileye_data.objects_detection_events
                      WHERE vehicle_id = text->>'vehicle_id' AND object_type = one->>'object_type'
                        AND object_value = (one->>'object_value')::integer
                        AND detection_time = (text->>'detection_time')::timestamptz))
            """
        )
        return int(count) + super().torn()

    def _held(self, thread: str = MAIN) -> Held:
        environment = {"WATCH_FOLDER": str(self.folder), "DATABASE_URL": self.url}
        commands = "replay failed", "replay rejected"
        return self.nursery.hold("commands", *commands, thread=thread, environment=environment)

    def _fix_records(self) -> None:
        times = [_time(1), _time(7)]
        self.query(
            "DELETE FROM mobileye_data.vehicle_status_history WHERE report_time = ANY (%s::timestamptz[])",
            [times],
        )
        self.query(
            "DELETE FROM mobileye_data.objects_detection_events WHERE detection_time = %s",
            [event(30)["detection_time"]],
        )
        self.query(
            """
            UPDATE mobileye_data.rejected_records
            SET edited = jsonb_set(original::jsonb, '{status}', '"parking"')::json
            WHERE original->>'status' = '1'
            """
        )


def _fixed_files() -> dict[str, bytes]:
    """Returns the files that are in failed/ now: small and large, already loaded, still bad."""
    many = [event(i, *((kind, i % 9) for kind in _KINDS), vehicle=f"{i:032x}") for i in range(800)]
    return {
        "objects_detection_4.json": _GOOD,
        "objects_detection_5.json": detections(*many),
        "vehicles_status_5.json": statuses(*(report(i, vehicle="v") for i in range(20)), report(5, "driven")),
        "vehicles_status_6.json": b"{}",
    }


def _time(second: int) -> str:
    return str(report(second)["report_time"])
