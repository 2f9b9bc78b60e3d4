"""Alert rules: promtool accepts them, each has a case in which it fires, and a normal day is silent."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.prometheus import DEPLOY, RULES, needs_promtool
from tests.monitor.test_metrics import documented

FOLDER = DEPLOY / "prometheus"
CASES = FOLDER / "alerts_test.yml"
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text())


def promtool(*arguments: str, cwd: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True)


@needs_promtool
def test_promtool_accepts_the_rules_and_the_example() -> None:
    for arguments in (("check", "rules", "alerts.yml"), ("check", "config", "prometheus.yml")):
        done = promtool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_each_alert_fires_in_its_case_and_none_on_a_normal_day() -> None:
    done = promtool("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("alert", ALERTS)
def test_the_cases_miss_an_alert_that_is_not_there(alert: str, tmp_path: Path) -> None:
    rules = RULES.read_text()
    assert rules.count(f"alert: {alert}\n") == 1
    (tmp_path / "alerts.yml").write_text(rules.replace(f"alert: {alert}\n", "alert: Another\n"))
    shutil.copy(CASES, tmp_path)
    done = promtool("test", "rules", CASES.name, cwd=tmp_path)
    assert done.returncode != 0 and f'alertname="{alert}"' in done.stdout + done.stderr


def test_the_rules_ask_only_for_metrics_that_are_documented() -> None:
    named = {re.sub(r"_bucket$", "", name) for name in re.findall(r"mobileye_[a-z_]+", RULES.read_text())}
    assert named and named <= {*documented(), *documented("kafka.md")}
