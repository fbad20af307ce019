"""A list that takes long beside a watch that goes on, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from kubernetes_asyncio import client

from gpudev_hub.clock import Clock
from gpudev_hub.cluster.ec2 import CapacityBlocks
from gpudev_hub.cluster.kubernetes import KubernetesCluster
from gpudev_hub.core.model import NodeStatus


def node(*, cordoned: bool) -> dict[str, Any]:
    return {
        "kind": "Node",
        "metadata": {"name": "node-1", "labels": {"gpudev/pool": "h100"}},
        "spec": {"unschedulable": cordoned},
        "status": {
            "allocatable": {"nvidia.com/gpu": "8"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def no_blocks() -> CapacityBlocks:
    """There are none: EC2 is never asked."""
    return CapacityBlocks(lambda: None, "us-east-2", Clock())


async def test_what_a_watch_brings_while_a_list_is_made_is_not_undone_by_it() -> None:
    """A node that was cordoned just then would be planned on again, until it changes once more."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def nodes(_: web.Request) -> web.Response:
        return web.json_response({"items": [node(cordoned=False)], "metadata": {"resourceVersion": "1"}})

    async def pods(_: web.Request) -> web.Response:
        asked.set()
        await answer.wait()
        return web.json_response({"items": [], "metadata": {"resourceVersion": "2"}})

    app = web.Application()
    app.router.add_get("/api/v1/nodes", nodes)
    app.router.add_get("/api/v1/pods", pods)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    async with client.ApiClient(client.Configuration(host=f"http://{host}:{port}")) as api:
        cluster = KubernetesCluster(client.CoreV1Api(api), "gpudev-servers", lambda: 0, no_blocks())
        listing = asyncio.create_task(cluster.nodes())
        await asyncio.wait_for(asked.wait(), 10)
        cluster._changed("MODIFIED", node(cordoned=True))
        answer.set()
        assert [found.status for found in await listing] == [NodeStatus.DRAINED]
        assert [found.status for found in await cluster.nodes()] == [NodeStatus.UP], "a list of its own time"
    await runner.cleanup()
