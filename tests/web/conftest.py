"""Fixtures for every test: the service with its two listeners, two users, an operator and a Hub."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from web_site import Running, running


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Running]:
    async with running() as run:
        run.hub.person("alices", "alice")
        run.hub.person("bobs", "bob")
        run.hub.person("operators", "olga", scopes=("custom:gpudev:reserve", "custom:gpudev:operate"))
        run.hub.person("starter", "alice", scopes=("start:servers!user=alice", "access:servers!user=alice"))
        yield run
