from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import Stack, running_stack


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Return a temporary folder with a short path, because paths of sockets and lines of sshd have limits."""
    with tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Return a hub that the tests of a module share. Each test ends all its servers."""
    with (
        tempfile.TemporaryDirectory(prefix="a state -", ignore_cleanup_errors=True) as folder,
        running_stack(Path(folder)) as running,
    ):
        yield running
