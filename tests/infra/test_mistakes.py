"""Plants the mistakes of ``mistakes/`` in copies of infra: a check must refuse each, for the right reason.

The head of a patch says which check, and what it must say::

    Check: test pool           `tofu test` with tests/pool.tftest.hcl
    Check: test cluster        likewise, of the root folder cluster (Root: NAME for another one)
    Check: refusal prod        `tofu plan` refuses
    Check: plan prod           a rule for plans is broken
    Check: roles prod          a rule for what roles may do is broken
    Says: what must be printed

Mistakes with the same check are planted together, as far as their patches fit into one copy. So a mistake
must not cause what another one of the check says. ``GPUDEV_MISTAKES=alone`` plants each alone, slowly.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra_rules import RULES
from role_rules import ROLE_RULES
from tofu import Tofu, said
from tofu_roles import policies_of

ALONE = os.environ.get("GPUDEV_MISTAKES") == "alone"
pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Mistake:
    """A patch, and what its head says."""

    patch: Path
    root: str
    check: str
    says: str


def read(patch: Path) -> Mistake:
    """Read the head of a patch."""
    head = dict(re.findall(r"^(Check|Says|Root): (.+)$", patch.read_text(), re.MULTILINE))
    return Mistake(patch, head.get("Root", "cluster"), head["Check"], head["Says"])


MISTAKES = [read(patch) for patch in sorted((Path(__file__).parent / "mistakes").glob("*.patch"))]


def of_one_check(mistake: Mistake) -> list[Mistake]:
    """Return the mistakes with the same check: the given one, and then the others."""
    others = (each for each in MISTAKES if (each.root, each.check) == (mistake.root, mistake.check))
    return [mistake, *(each for each in others if each != mistake)]


def test_there_are_mistakes_enough() -> None:
    assert len(MISTAKES) >= 15


def test_the_mistakes_of_a_check_can_be_told_apart() -> None:
    for mistake in MISTAKES:
        for other in of_one_check(mistake)[1:]:
            assert mistake.says not in other.says, f"{mistake.patch.stem} and {other.patch.stem}"


@pytest.fixture(scope="module")
def refusal(program: str) -> Callable[[Mistake], str]:
    """What the check of a mistake says, with the mistake planted."""
    found: dict[Mistake, str] = {}

    def of(mistake: Mistake) -> str:
        if mistake not in found:
            together = [mistake] if ALONE else [each for each in of_one_check(mistake) if each not in found]
            planted, said_of_all = plant(program, together)
            found.update(dict.fromkeys(planted, said_of_all))
        if mistake.says not in found[mistake]:
            # Another one may have ended the check before.
            _, found[mistake] = plant(program, [mistake])
        return found[mistake]

    return of


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: str(mistake.patch.stem))
def test_a_mistake_is_refused(refusal: Callable[[Mistake], str], mistake: Mistake) -> None:
    words = refusal(mistake)
    assert mistake.says in words, f"{mistake.patch.stem} is not refused by {mistake.check}: {words[-2000:]}"


def plant(program: str, mistakes: list[Mistake]) -> tuple[list[Mistake], str]:
    """Plant the first of these mistakes of one check, and those that fit.

    Returns what was planted, and what the check says.
    """
    # One folder for all: what `init` fetched is kept, and no two are tried at once.
    tofu = Tofu(program, "mistakes")
    planted = [each for each in mistakes if apply(each.patch, tofu.infra.parent)]
    assert planted[0] == mistakes[0], f"{mistakes[0].patch.stem} does not fit"
    root, (kind, name) = planted[0].root, planted[0].check.split()
    tofu.init(root)
    refused = {
        "test": refused_by_test,
        "plan": refused_by_plan,
        "refusal": refused_by_plan,
        "roles": refused_by_roles,
    }
    return planted, refused[kind](tofu, root, name)


def apply(patch: Path, folder: Path) -> bool:
    """Change the copy; return whether the patch fits. Git must not notice the repository around it."""
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    done = subprocess.run(
        ["git", "apply", patch], cwd=folder, env=environment, capture_output=True, check=False
    )
    return done.returncode == 0


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
