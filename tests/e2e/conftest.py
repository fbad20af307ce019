from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from people import Person
from stack import Stack

POLICY = """{
  "warn_minutes": [1],
  "restart_window_seconds": 25,
  "startup_seconds": 60,
  "teardown_seconds": 10
}"""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Run a hub with 2 × 8 simulated GPUs and short times, so that tests need not wait long."""
    with tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder:
        policy = Path(folder) / "policy.json"
        policy.write_text(POLICY)
        running = Stack(Path(folder), environment={"GPUDEV_POLICY": str(policy)})
        try:
            running.start()
            yield running
        finally:
            running.close()


@pytest.fixture(scope="module")
def person(stack: Stack) -> Callable[[str], Person]:
    """Return a user of the hub with a login. A second call with the same name returns the same user."""
    known: dict[str, Person] = {}

    def find(name: str) -> Person:
        if name not in known:
            known[name] = Person(stack, name)
            known[name].login()
        return known[name]

    return find
