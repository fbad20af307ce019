"""The real service, and the JupyterLab extension of one server that uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from web_site import Running, running


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Running]:
    async with running() as run:
        run.hub.person("alices", "alice")
        yield run
