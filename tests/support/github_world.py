"""Helpers for tests of access by GitHub."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gpudev_hub.core.model import SECOND, Millis


class Now:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.ahead: Millis = 0

    def __call__(self) -> Millis:
        return round(time.time() * SECOND) + self.ahead


async def until(seen: Callable[[], bool]) -> None:
    """Wait until another task has made the condition true."""
    async with asyncio.timeout(30):
        while not seen():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
