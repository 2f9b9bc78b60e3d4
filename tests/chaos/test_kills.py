"""Kills of the ingest and of a recall at a sample of their system calls, requests to a bucket and COMMITs."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.connection import Database
from tests.chaos.buckets import BucketRig
from tests.chaos.kills import KillRig, Point
from tests.chaos.recalls import RecallRig

SEED = 20220605
SAMPLE = 16


@pytest.fixture
def rig(tmp_path: Path, database: Database) -> Iterator[KillRig]:
    with KillRig(tmp_path / "incoming", database) as rig:
        yield rig


@pytest.mark.timeout(300)
def test_a_kill_at_any_system_call_neither_loses_nor_doubles_a_row(rig: KillRig) -> None:
    points = rig.trace()
    chosen = random.Random(SEED).sample(points, SAMPLE)
    for point in [*chosen, *decisive(points)]:
        rig.reset()
        rig.kill_at(point)
        assert rig.torn() == 0, point
        assert rig.restart().code == 0, point
        assert rig.rows() == rig.expected, point
        assert rig.left() == [], point
        assert rig.failed() == ["vehicles_status_3.json"], point


@pytest.mark.timeout(300)
def test_a_kill_at_any_system_call_of_a_recall_leaves_each_file_whole_or_recalled(
    tmp_path: Path, database: Database
) -> None:
    with RecallRig(tmp_path / "incoming", database) as rig:
        states = set()
        for point in random.Random(SEED).sample(rig.trace(), SAMPLE):
            rig.reset()
            rig.kill_at(point)
            assert rig.torn() == 0, point
            states |= set(rig.query("SELECT state FROM mobileye_data.ingested_files"))
            assert rig.restart().code == 0, point
            assert rig.rows() == rig.expected, point
        assert {("loaded",), ("recalled",)} <= states


@pytest.mark.timeout(300)
def test_a_kill_at_any_request_to_a_bucket_neither_loses_nor_doubles_a_row(
    tmp_path: Path, database: Database
) -> None:
    with BucketRig(tmp_path / "incoming", database) as rig:
        points = rig.trace()
        commits = [point for point in points if point.call == "COMMIT"]
        copies = [point for point in points if point.call in ("COPY", "PUT")]
        chance = random.Random(SEED)
        for point in [*chance.sample(points, 4), *chance.sample(commits, 2), *chance.sample(copies, 2)]:
            rig.reset()
            assert rig.kill_at(point), point
            assert rig.torn() == 0, point
            assert rig.restart().code == 0, point
            assert rig.rows() == rig.expected, point
            assert (rig.left(), rig.failed()) == ([], rig.quarantined), point


def decisive(points: list[Point]) -> list[Point]:
    """Returns a sample of the renames and deletes."""
    acts = [point for point in points if point.call in ("rename", "renameat2", "unlink")]
    return random.Random(SEED).sample(acts, min(len(acts), 12))
