"""The page for operators on AWS: its tables name what the code makes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from gpudev.cli.app import gpu_dev

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "aws"
PAGE = ROOT / "docs" / "operating-aws.md"
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
