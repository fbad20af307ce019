"""The page for operators on AWS: its tables name what the code makes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import botocore.session
import click
import pytest
from botocore import xform_name

from gpudev.cli.app import gpu_dev

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "aws"
PAGE = ROOT / "docs" / "operating-aws.md"
OF_THE_CLI_ALONE = {("eks", "update-kubeconfig"), ("ecr", "get-login-password")}
OF_EVERY_COMMAND = {"query", "output", "region", "no-cli-pager"}
PAGES = [ROOT / "docs" / "install-aws.md", PAGE, *sorted((ROOT / "docs" / "aws").glob("*.md"))]


def test_the_table_names_every_kind_of_resource() -> None:
    code = "\n".join(path.read_text() for path in FOLDER.rglob("*.tf"))
    made = set(re.findall(r'^resource "(aws_\w+)"', code, re.MULTILINE))
    assert len(made) > 50
    named = set(re.findall(r"`(aws_\w+)`", PAGE.read_text()))
    assert named == made


def test_the_table_names_every_release() -> None:
    code = "\n".join(path.read_text() for path in (FOLDER / "platform").glob("*.tf"))
    made = set(re.findall(r'^resource "helm_release" "(\w+)"', code, re.MULTILINE))
    named = set(re.findall(r"`helm_release\.(\w+)`", PAGE.read_text()))
    assert named == made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_every_output_that_a_page_asks_for_is_there(page: Path) -> None:
    outputs = (FOLDER / "cluster" / "outputs.tf").read_text()
    asked = set(re.findall(r"tofu output (?:-raw |-json )?([a-z_]+)", page.read_text()))
    assert asked <= set(re.findall(r'^output "(\w+)"', outputs, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_every_command_of_gpu_dev_on_a_page_is_there(page: Path) -> None:
    text = re.sub(r"\s*\n\s*", " ", page.read_text())
    for said in re.findall(r"`(gpu-dev [^`]+)`", text):
        words = [word for word in shlex.split(said)[1:] if word != "…"]
        command: click.Command = gpu_dev
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, said
            command = found
        options = {name for option in command.params for name in option.opts}
        assert {word for word in words if word.startswith("--")} <= options, said


def aws_commands(page: Path) -> list[list[str]]:
    """Return the words of each command of the AWS CLI on a page, up to a pipe or the next command."""
    text = page.read_text().replace("\\\n", " ").replace("\\|", "|")
    found = re.findall(r"\baws ([a-z0-9-]+ [a-z][a-z-]+[^`\n]*(?:`[a-zA-Z0-9.:/]+`[^`\n]*)*)", text)
    return [re.split(r"[|;&)>`]| \$\(", command)[0].split() for command in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_every_command_of_the_aws_cli_on_a_page_is_there(page: Path) -> None:
    """By the description of AWS's API that boto3 has: the CLI is made of the same."""
    session = botocore.session.get_session()
    for service, name, *words in aws_commands(page):
        if (service, name) in OF_THE_CLI_ALONE:
            continue
        model = session.get_service_model({"s3api": "s3"}.get(service, service))
        if name == "wait":
            waiters = session.get_waiter_model(service).waiter_names
            assert not words or words[0] in {xform_name(one, "-") for one in waiters}, (service, words)
            continue
        operations = {xform_name(one, "-"): one for one in model.operation_names}
        assert name in operations, (service, name)
        members = model.operation_model(operations[name]).input_shape.members
        known = {xform_name(one, "-") for one in members} | OF_EVERY_COMMAND
        given = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
        assert {one.removeprefix("no-") if one not in known else one for one in given} <= known, (name, given)
