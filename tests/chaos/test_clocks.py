"""The clock of a running program can be set."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.chaos.clocks import Clock

_PRINT_DIFFERENCES = (
    "import time; [(input(), print(time.time() - {0}, time.time_ns() // 10**9 - int({0}))) for _ in '12']"
)


def test_a_clock_is_set_while_a_program_runs(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    clock.set(1000)
    program = subprocess.Popen(
        [sys.executable, "-c", _PRINT_DIFFERENCES.format(time.time())],
        env={**os.environ, **clock.environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdin is not None and program.stdout is not None
    for seconds in (1000, -86_400):
        clock.set(seconds)
        program.stdin.write("\n")
        program.stdin.flush()
        answers = map(float, program.stdout.readline().split())
        assert all(seconds - 5 <= answer <= seconds + 60 for answer in answers)
    program.communicate()
    assert program.returncode == 0
