"""The template of the function for AWS Lambda: it is sound, and gives no right that nobody needs."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode.cfn_yaml import load

from config import Settings
from jobs import build_lambda
from tests.jobs.emulator import HANDLER
from tests.support import ROOT

PATH = ROOT / "deploy" / "lambda" / "template.yaml"


@pytest.fixture(scope="module")
def resources() -> Any:
    return {name: resource.get("Properties") for name, resource in load(str(PATH))["Resources"].items()}


def named(value: Any) -> str:
    """A text with its bucket named."""
    text = value["Fn::Sub"] if isinstance(value, dict) else value
    return str(text).replace("${BucketName}", "bucket").replace("${AWS::Partition}", "aws")


def test_cfn_lint_finds_nothing() -> None:
    program = Path(sys.executable).parent / "cfn-lint"
    run = subprocess.run([program, PATH], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_b7_the_filter_excludes_what_failed_and_what_is_archived(resources: Any) -> None:
    (notice,) = resources["Bucket"]["NotificationConfiguration"]["QueueConfigurations"]
    (rule,) = notice["Filter"]["S3Key"]["Rules"]
    given = resources["Function"]["Environment"]["Variables"]
    settings = Settings.model_validate(
        {name.lower(): named(given[name]) for name in given if "FOLDER" in name}
    )
    assert (
        settings.bucket is not None and settings.bucket.prefix == rule["Value"] and rule["Name"] == "prefix"
    )
    ends = settings.bucket_ends
    assert not ends.failed.startswith(rule["Value"]) and not ends.archive.startswith(rule["Value"])


def test_the_role_may_act_on_named_places_only(resources: Any) -> None:
    (policy,) = resources["Role"]["Policies"]
    statements = policy["PolicyDocument"]["Statement"]
    assert "*" not in str([statement["Action"] for statement in statements])
    of_bucket = [statement for statement in statements if "s3:" in str(statement["Action"])]
    places = {str(s["Action"]): s["Resource"] for s in of_bucket}
    deleting = [places[actions] for actions in places if "Delete" in actions]
    assert [named(place) for place in deleting] == ["arn:aws:s3:::bucket/incoming/*"]
    writing = [str(places[actions]) for actions in places if "Put" in actions]
    assert len(writing) == 1 and "failed/*" in writing[0] and "incoming" not in writing[0]
    assert "Resource': '*'" not in str(statements)


def test_the_function_is_the_one_that_is_built(resources: Any) -> None:
    function = resources["Function"]
    defaults = {name: p.default for name, p in inspect.signature(build_lambda.main).parameters.items()}
    assert function["Handler"] == HANDLER and function["Runtime"] == f"python{defaults['python']}"
    assert (PATH.parent / function["CodeUri"]).resolve() == ROOT / defaults["out"]
    assert set(function["Environment"]["Variables"]) <= {name.upper() for name in Settings.model_fields}


def test_a_message_is_not_delivered_again_while_it_is_worked_on(resources: Any) -> None:
    assert resources["Queue"]["VisibilityTimeout"] == 6 * resources["Function"]["Timeout"]
    assert resources["Arrivals"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
