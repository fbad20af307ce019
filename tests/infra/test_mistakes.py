"""Plants each mistake of ``mistakes/`` in a copy of infra: a check must refuse it, for the right reason.

The head of a patch says which check, and what it must say::

    Check: test pool           `tofu test` with tests/pool.tftest.hcl
    Check: test cluster        likewise, of the root folder cluster (Root: NAME for another one)
    Check: plan prod           `tofu plan` refuses, or a rule for plans is broken
    Check: roles prod          a rule for what roles may do is broken
    Says: what must be printed
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from infra_rules import RULES
from role_rules import ROLE_RULES
from tofu import Tofu, said
from tofu_roles import policies_of

MISTAKES = sorted((Path(__file__).parent / "mistakes").glob("*.patch"))
pytestmark = pytest.mark.timeout(300)


def test_there_are_mistakes_enough() -> None:
    assert len(MISTAKES) >= 15


@pytest.mark.parametrize("patch", MISTAKES, ids=lambda patch: str(patch.stem))
def test_a_mistake_is_refused(program: str, patch: Path) -> None:
    head = dict(re.findall(r"^(Check|Says|Root): (.+)$", patch.read_text(), re.MULTILINE))
    root = head.get("Root", "cluster")
    # One folder for all: what `init` fetched is kept, and no two mistakes are tried at once.
    tofu = Tofu(program, "mistakes")
    apply(patch, tofu.infra.parent)
    kind, name = head["Check"].split()
    tofu.init(root)
    refused = {"test": refused_by_test, "plan": refused_by_plan, "roles": refused_by_roles}[kind]
    refusal = refused(tofu, root, name)
    assert head["Says"] in refusal, f"{patch.stem} is not refused by {head['Check']}: {refusal[-2000:]}"


def apply(patch: Path, folder: Path) -> None:
    """Change the copy. Git must not notice the repository around it."""
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    subprocess.run(["git", "apply", patch], cwd=folder, env=environment, check=True)


def refused_by_test(tofu: Tofu, root: str, name: str) -> str:
    """Return what `tofu test` says; nothing, if it passes."""
    values = "test" if name == "test" else "prod"
    done = tofu.run(root, "test", f"-var-file={values}.tfvars", f"-filter=tests/{name}.tftest.hcl")
    return said(done) if done.returncode else ""


def refused_by_plan(tofu: Tofu, root: str, environment: str) -> str:
    """Return what the plan or the rules for plans say; nothing, if all is well."""
    try:
        plan = tofu.plan(root, environment)
    except AssertionError as refusal:
        return str(refusal)
    return ". ".join(problem for rule in RULES for problem in rule(plan))


def refused_by_roles(tofu: Tofu, root: str, environment: str) -> str:
    """Return what the rules for roles say; nothing, if all is well."""
    assert (root, environment) == ("cluster", "prod")
    policies = policies_of(tofu)
    return ". ".join(problem for rule in ROLE_RULES for problem in rule(policies))
