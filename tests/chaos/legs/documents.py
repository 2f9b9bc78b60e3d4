"""Drops documents by chance, sound and nearly so, and compares what is stored with a plain reference."""

from collections import defaultdict
from itertools import islice
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.chaos.background import beside
from tests.chaos.rig import Finding, Rig, Trial
from tests.processing.test_differential import EVENTS, STATUS, Expected, contents, expected
from tests.support import query, until

#: So many documents are in the folder at a time.
_AT_ONCE = 400


def random_documents(trial: Trial) -> Finding:
    """Hypothesis makes them; each has to be stored as json.loads reads it, or to fail with a reason."""
    finding = Finding()
    trial.volume = max(trial.volume, _AT_ONCE)
    with trial.rig(SETTLE_SECONDS=0.2, RESCAN_SECONDS=0.2) as rig:
        with beside(rig.meter.measure):
            rig.daemon.start()
            documents = list(islice(dict.fromkeys(_documents(trial)), trial.volume))
            for start in range(0, len(documents), _AT_ONCE):
                _load(rig, documents[start : start + _AT_ONCE], start)
                trial.done += len(documents[start : start + _AT_ONCE])
        finding.complaints += _differences(rig, documents)
    return finding


def _documents(trial: Trial) -> list[bytes]:
    made: list[bytes] = []

    @hypothesis.seed(trial.seed)
    @settings(
        max_examples=2 * trial.volume,  # some come twice
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(contents())
    def make(content: bytes) -> None:
        made.append(content)

    make()
    return made


def _load(rig: Rig, documents: list[bytes], start: int) -> None:
    for number, content in enumerate(documents, start):
        rig.daemon.drop(f"document_{number}.json", content)
    until(lambda: not rig.daemon.left(), 60, "all documents have their verdict")


def _differences(rig: Rig, documents: list[bytes]) -> list[str]:
    """Of verdicts, of rejected positions, and of rows without what is in extra, which jsonb writes anew."""
    entries, stored = _entries(rig), _stored(rig)
    references = [expected(content) for content in documents]
    wrong = [
        f"document {number}: {entries.get(number)} instead of {_entry(reference)}: {documents[number]!r}"
        for number, reference in enumerate(references)
        if entries.get(number) != _entry(reference)
    ]
    due: defaultdict[tuple[Any, ...], set[Any]] = defaultdict(set)
    for reference in filter(None, references):
        for *key, value, _ in reference.rows:
            due[tuple(key)].add(value)
    wrong += [f"missing: {key}" for key in due.keys() - stored.keys() - _refused(rig)]
    wrong += [f"nobody's: {key}" for key in stored.keys() - due.keys()]
    wrong += [f"another value: {key}" for key in stored.keys() & due.keys() if stored[key] not in due[key]]
    return wrong[:10]


def _entry(reference: Expected | None) -> tuple[Any, ...]:
    if reference is None:
        return "failed", 0, []
    return "loaded", reference.position, sorted(position for position, _ in reference.rejects)


def _entries(rig: Rig) -> dict[int, tuple[Any, ...]]:
    """By document: state, records read, positions of the invalid ones; not of those whose key was taken."""
    rows = query(
        rig.url,
        """
        SELECT substring(name FROM '[0-9]+')::integer, state, rows_read,
               array(SELECT position FROM mobileye_data.rejected_records r
                     WHERE r.file_id = f.file_id AND reason = 'invalid' ORDER BY position)
        FROM mobileye_data.ingested_files f
        """,
    )
    return {number: tuple(entry) for number, *entry in rows}


def _refused(rig: Rig) -> set[tuple[Any, ...]]:
    """Keys of sound records that PostgreSQL did not take, such as numbers beyond what jsonb holds."""
    originals = query(
        rig.url,
        "SELECT original::text FROM mobileye_data.rejected_records WHERE reason = 'refused'",
    )
    found = set()
    for (original,) in originals:
        key = EVENTS if '"detections"' in original else STATUS
        reference = expected(f'{{"{key}": [{original}]}}'.encode())
        found |= {tuple(row[:-2]) for row in reference.rows} if reference else set()
    return found


def _stored(rig: Rig) -> dict[tuple[Any, ...], Any]:
    detections = """
        SELECT vehicle_id, detection_time, object_type, object_value
        FROM mobileye_data.objects_detection_events
    """
    reports = "SELECT vehicle_id, report_time, status FROM mobileye_data.vehicle_status_history"
    rows = [*query(rig.url, detections), *query(rig.url, reports)]
    return {tuple(key): value for *key, value in rows}
