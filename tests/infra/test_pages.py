"""The page for operators on AWS: its tables name what the code makes."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "aws"
PAGE = ROOT / "docs" / "operating-aws.md"


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
