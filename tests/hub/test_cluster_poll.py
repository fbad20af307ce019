"""What the Hub is told of a server's pods; the pods are as the API shows them, the API itself is left out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gpudev_hub.hub.kubernetes import GpuSpawner


def pod(rank: int, *, ended: bool = False) -> dict[str, Any]:
    state = {"terminated": {"reason": "Error", "exitCode": 1}} if ended else {"running": {}}
    return {
        "metadata": {
            "name": f"a1-1-{rank}" if rank else "a1-1",
            "uid": f"uid-{rank}",
            "namespace": "servers",
            "labels": {
                "gpudev/reservation": "a1",
                "gpudev/attempt": "1",
                "gpudev/rank": str(rank),
                "gpudev/ranks": "2",
            },
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "server"}]},
        "status": {
            "phase": "Failed" if ended else "Running",
            "podIP": f"198.18.0.{rank + 1}",
            "containerStatuses": [{"name": "server", "state": state}],
        },
    }


class Spawner(GpuSpawner):
    """Sees the pods that a test names, in its watch and in lists."""

    name: Any = "a1"
    seen: Any = None

    @property
    def pod_reflector(self) -> Any:
        return SimpleNamespace(pods={item["metadata"]["name"]: item for item in self.seen})

    @property
    def _calls(self) -> Any:
        async def pods(_: str) -> list[dict[str, Any]]:
            return list(self.seen)

        return SimpleNamespace(pods=pods)

    async def _watches(self) -> None:
        pass


@pytest.mark.parametrize(
    ("pods", "answer"),
    [
        ([pod(0), pod(1)], None),
        ([pod(0, ended=True), pod(1)], None),
        ([pod(1)], None),
        ([pod(0, ended=True), pod(1, ended=True)], 1),
        ([], 1),
    ],
    ids=["both", "rank 0 ended", "rank 0 deleted", "both ended", "none"],
)
async def test_a_pair_runs_for_the_hub_while_any_of_its_ranks_does(
    monkeypatch: pytest.MonkeyPatch, pods: list[dict[str, Any]], answer: int | None
) -> None:
    """The Hub stops only what runs: it would leave the other rank alone and call the server stopped."""
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    spawner = Spawner(_mock=True)
    spawner.namespace, spawner.seen = "servers", pods
    spawner.attempt = 1
    assert await spawner.poll() == answer
