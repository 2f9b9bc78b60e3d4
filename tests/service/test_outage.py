"""The log lines of an outage, and the times of its tries."""

from itertools import pairwise

import pytest

from processing.errors import DatabaseUnavailable, SourceUnavailable
from service.events import Resource
from service.outage import Outage, wait_for
from service.signals import StopSignal
from tests.service.support import to_log


def test_each_reason_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = [
        DatabaseUnavailable(reason) for reason in ("closed", "closed", "read-only", "read-only", "closed")
    ]
    outage = Outage(Resource.DATABASE, to_log())
    for reason in reasons:
        outage.postpone(reason, once=False)
    lines = [line.split(" warning ")[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "waiting for the database reason=closed",
        "the database is still away reason=read-only",
    ]


def test_it_is_tried_every_second_for_a_minute_then_every_five(monkeypatch: pytest.MonkeyPatch) -> None:
    now, tries = 1000.0, []
    monkeypatch.setattr("time.monotonic", lambda: now)
    database = Outage(Resource.DATABASE, lambda _: None)
    while now < 1200.0:
        database.postpone(DatabaseUnavailable("closed"), once=False)
        now = database.next_try
        tries.append(now)
    first = [after - before for before, after in pairwise(tries) if after < 1060]
    later = [after - before for before, after in pairwise(tries) if before > 1061]
    assert max(first) <= 1 and min(first[2:]) >= 0.75
    assert max(later) <= 5 and min(later) >= 3.75


def test_an_attempt_is_repeated_until_nothing_is_away(capsys: pytest.CaptureFixture[str]) -> None:
    errors: list[Exception] = [DatabaseUnavailable("closed"), SourceUnavailable("refused")]

    def attempt() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    away = {DatabaseUnavailable: Resource.DATABASE, SourceUnavailable: Resource.BUCKET}
    assert wait_for(attempt, away, to_log(), StopSignal(), once=False) == "done"
    lines = [line[28:].split(" seconds=")[0].strip() for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "warning waiting for the database reason=closed",
        "warning waiting for the bucket reason=refused",
        "info    the database is back",
        "info    the bucket is back",
    ]


def test_an_attempt_ends_with_the_stop_and_other_errors_pass(capsys: pytest.CaptureFixture[str]) -> None:
    stop = StopSignal()

    def attempt() -> str:
        stop.event.set()
        raise DatabaseUnavailable("closed")

    away: dict[type[Exception], Resource] = {DatabaseUnavailable: Resource.DATABASE}
    assert wait_for(attempt, away, to_log(), stop, once=False) is None
    assert capsys.readouterr().err == ""
    stop.event.clear()
    with pytest.raises(DatabaseUnavailable):
        wait_for(attempt, {SourceUnavailable: Resource.BUCKET}, to_log(), stop, once=False)
