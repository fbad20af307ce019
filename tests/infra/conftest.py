"""Fixtures for tests of ``infra/aws``.

Tests that need OpenTofu are skipped unless ``GPUDEV_TOFU`` names it. ``make test-infra`` sets this variable.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from tofu import SCRATCH, Json, Tofu, alone, fingerprint


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need OpenTofu, so that a run can leave them out."""
    for item in items:
        if "program" in getattr(item, "fixturenames", ()):
            item.add_marker("tofu")


@pytest.fixture(scope="session")
def program() -> str:
    """Return the ``tofu`` program."""
    named = os.environ.get("GPUDEV_TOFU")
    if not named:
        pytest.skip("GPUDEV_TOFU names no OpenTofu, so infra/aws is NOT planned")
    return named


@pytest.fixture(scope="session")
def plan(program: str) -> Callable[[str, str], Json]:
    """Return the plan of a root folder in an environment. The same ``infra`` is planned only once."""

    def made(root: str, environment: str) -> Json:
        kept = SCRATCH / "plans" / f"{root}-{environment}-{fingerprint()}.json"
        with alone(f"plan-{root}-{environment}"):
            if not kept.exists():
                tofu = Tofu(program, f"plan-{root}-{environment}")
                if root == "platform":
                    tofu.give_state(made("cluster", environment))
                tofu.init(root)
                found = tofu.plan(root, environment)
                kept.parent.mkdir(exist_ok=True)
                for old in kept.parent.glob(f"{root}-{environment}-*.json"):
                    old.unlink()
                kept.write_text(json.dumps(found))
        result: Json = json.loads(kept.read_text())
        return result

    return made
