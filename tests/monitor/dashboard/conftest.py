"""A dashboard for each test of the pages."""

from collections.abc import Iterator

import pytest

from tests.monitor.dashboard.support import Dashboard, serving
from tests.support import Daemon


@pytest.fixture
def dashboard(daemon: Daemon) -> Iterator[Dashboard]:
    """A dashboard beside a daemon that is not started yet."""
    with serving(daemon) as dashboard:
        yield dashboard
