"""Injects faults into the recall of all files at any of its system calls; a second recall must repair all."""

from collections.abc import Iterator

from tests.chaos.kills import TABLES
from tests.chaos.nursery import MAIN, Ended, Held
from tests.chaos.replays import ReplayRig
from tests.support import report, statuses

#: Rows and rejected records of each file; those of a recalled one are gone, those of others all there.
_COUNTS = """
    SELECT count(*)
    FROM mobileye_data.ingested_files f
    LEFT JOIN (SELECT file_id, count(*) AS n FROM mobileye_data.{table} GROUP BY 1) now USING (file_id)
    LEFT JOIN (SELECT file_id, count(*) AS n FROM saved.{table} GROUP BY 1) before USING (file_id)
    WHERE coalesce(now.n, 0) <> CASE f.state WHEN 'recalled' THEN 0 ELSE coalesce(before.n, 0) END
"""


class RecallRig(ReplayRig):
    """Loaded and failed files, with rejected records and replays of these, for a recall of them all."""

    def dropped(self) -> Iterator[tuple[str, bytes]]:
        """Yields the files of a replay, but fewer rejects: each is a file of its own that is recalled."""
        few = statuses(*(report(i, status=1) for i in range(100, 103)))  # type: ignore[arg-type]
        yield from {**dict(super().dropped()), "vehicles_status_2.json": few}.items()

    def prepare(self) -> None:
        super().prepare()
        self._without_faults(super()._held())
        self.save()

    def restart(self) -> Ended:
        """Runs the recall again; if there is nothing left to recall, it says so."""
        return self._held().run()

    def torn(self) -> int:
        """Counts files that were recalled in part."""
        tables = [table for table in TABLES if table not in ("ingested_files", "vehicle_status")]
        return sum(self.query(_COUNTS.format(table=table))[0][0] for table in tables)

    def _held(self, thread: str = MAIN) -> Held:
        environment = {"WATCH_FOLDER": str(self.folder), "DATABASE_URL": self.url}
        return self.nursery.hold(
            "commands", "recall --since 2000-01-01", thread=thread, environment=environment
        )
