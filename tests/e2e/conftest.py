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
    """A hub with 2 × 8 simulated GPUs and times short enough to wait for."""
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
    """A user of the hub, logged in; the same one when asked for again."""
    known: dict[str, Person] = {}

    def find(name: str) -> Person:
        if name not in known:
            known[name] = Person(stack, name)
            known[name].login()
        return known[name]

    return find
