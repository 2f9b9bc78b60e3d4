"""A short, seeded run of each scenario, except those of single points: see test_kills.py."""

import os
from collections.abc import Iterator

import pytest
from _pytest.mark.structures import ParameterSet

from tests.chaos import runner
from tests.chaos.catalogue import SCENARIOS, Scenario
from tests.support import Server

SEED = 20220605

#: Each scenario does its share of a run of this many minutes; some need more to cover all their cases.
#: "silence" is left out because it takes minutes; tests/service/test_daemon.py freezes a server with shorter
#: limits.
MINUTES = {
    "kill-pairs": 1,
    "replay-points": 0.7,
    "failing-calls": 0.35,
    "bucket-requests": 2.2,
    "bucket-daemons": 5,
    "stream-consumers": 1.2,
    "stream-publishers": 1.8,
    "kills": 0.3,
    "stops": 0.8,
    "messages": 0.6,
    "restarts": 2.4,
    "sqlstates": 5.25,
    "hostile-folder": 20,
    "races": 1.5,
    "bombs": 5,
    "overflow": 3,
    "sabotage": 5,
    "documents": 0.3,
    "model": 0.6,
    "soak": 2,
}


def chosen() -> Iterator[ParameterSet]:
    for scenario in SCENARIOS:
        if scenario.name in MINUTES:
            yield pytest.param(scenario, id=scenario.name)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
@pytest.mark.timeout(300)  # that of a stream has a broker to wait for
@pytest.mark.parametrize("scenario", list(chosen()))
def test_a_short_run_of_a_scenario_finds_no_fault(scenario: Scenario, server: Server) -> None:
    result = runner.run(scenario, server, minutes=MINUTES[scenario.name], seed=SEED)
    assert result.faults == []
