"""The spawner of one machine, beside a server of which nothing sensible is recorded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from gpudev_hub.hub.local import LocalGpuSpawner
from gpudev_hub.server import record


async def test_a_record_that_makes_no_sense_keeps_the_hub_from_nothing(tmp_path: Path) -> None:
    """It asks both of every server when it starts, and would end with what they raise."""
    folder = tmp_path / "odd-1" / "0"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{")
    told = "http://127.0.0.1:9/user/me/odd/"

    class Spawner(LocalGpuSpawner):
        """One that no Hub has made."""

        name: Any = "odd"
        server: Any = SimpleNamespace(url=told)
        local: ClassVar[Any] = SimpleNamespace(servers=tmp_path)

    spawner = Spawner()
    spawner.attempt = 1
    marked = {record.MARKER: record.marker("odd", 1, 0)}
    running = await asyncio.create_subprocess_exec("sleep", "600", env=marked)
    try:
        assert await spawner.poll() is None
        assert await spawner.get_url() == told
    finally:
        running.kill()
        await running.wait()
