"""The log lines of an outage."""

import pytest

from processing.errors import DatabaseUnavailable
from service.events import Resource
from service.outage import Outage
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
