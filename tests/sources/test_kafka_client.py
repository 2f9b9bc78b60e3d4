"""Errors of Kafka's clients become ours."""

from concurrent.futures import Future

import pytest

from processing.errors import SourceUnavailable
from sources.kafka_client import Complaints


def test_an_answer_that_does_not_come_in_time_is_an_outage() -> None:
    """Who wakes up after it was frozen finds that its time is over before the answer is read."""
    with pytest.raises(SourceUnavailable, match="Timed out"), Complaints(SourceUnavailable).translated():
        Future[int]().result(0)
