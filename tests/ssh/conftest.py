from collections.abc import Iterator
from pathlib import Path

import pytest

from ssh_world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return an environment for servers, and a home with an empty ``~/.ssh``."""
    with pytest.MonkeyPatch.context() as patch, World(tmp_path_factory.mktemp("ssh")) as world:
        patch.setenv("HOME", str(world.home))
        patch.setenv("GPUDEV_CONFIG", str(world.home / ".gpu-dev-config"))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        (world.home / ".gpu-dev-config").write_text("{}")
        yield world


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a separate home for one test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GPUDEV_CONFIG", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path
