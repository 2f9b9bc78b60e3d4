"""What the log is told of an outage."""

import pytest

from config import LogFormat
from monitor.log import make_log
from processing.errors import DatabaseUnavailable
from service.outage import Outage


def test_each_reason_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = [
        DatabaseUnavailable(reason) for reason in ("closed", "closed", "read-only", "read-only", "closed")
    ]
    outage = Outage("the database", reasons[0], make_log(LogFormat.TEXT))
    for reason in reasons:
        outage.postpone(reason, once=False)
    lines = [line.split(" warning ")[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "waiting for the database reason=closed",
        "the database is still away reason=read-only",
    ]
