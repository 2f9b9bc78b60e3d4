"""A short, seeded run of each leg of the proving machine; the kills have tests of their own."""

import os
from collections.abc import Iterator

import pytest
from _pytest.mark.structures import ParameterSet

from tests.chaos import runner
from tests.chaos.catalogue import LEGS, Leg
from tests.support import Server

SEED = 20220605

#: Of a run of so many minutes each leg does its part: some need more to hold all that they can do. Not
#: silence, which takes minutes: tests/commands/test_daemon.py freezes a server, with shorter limits.
MINUTES = {
    "kill-pairs": 1,
    "replay-points": 0.7,
    "failing-calls": 0.35,
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
    for leg in LEGS:
        if leg.name in MINUTES:
            yield pytest.param(leg, id=leg.name)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
@pytest.mark.parametrize("leg", list(chosen()))
def test_a_short_run_of_a_leg_finds_nothing(leg: Leg, server: Server) -> None:
    result = runner.run(leg, server, minutes=MINUTES[leg.name], seed=SEED)
    assert result.faults == []
