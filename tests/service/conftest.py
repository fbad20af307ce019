"""Fixtures with separate stand-ins for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service_world import ServiceWorld


@pytest.fixture
async def idle_world(tmp_path: Path) -> AsyncIterator[ServiceWorld]:
    """Return stand-ins for cluster and Hub, without a service."""
    world = ServiceWorld(tmp_path)
    yield world
    await world.close()


@pytest.fixture
async def world(idle_world: ServiceWorld) -> ServiceWorld:
    """Return the same stand-ins with a running service."""
    await idle_world.start()
    return idle_world
