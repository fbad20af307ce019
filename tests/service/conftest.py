"""One world for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service_world import ServiceWorld


@pytest.fixture
async def idle_world(tmp_path: Path) -> AsyncIterator[ServiceWorld]:
    """Cluster and Hub, no service yet."""
    world = ServiceWorld(tmp_path)
    yield world
    await world.close()


@pytest.fixture
async def world(idle_world: ServiceWorld) -> ServiceWorld:
    """With a running service."""
    await idle_world.start()
    return idle_world
