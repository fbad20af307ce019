"""Ends of capacity blocks as they reach the plan: nodes by HTTP from one API, their blocks from another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from kubernetes_asyncio import client

from fake_ec2 import Block, FakeEc2, serve
from gpudev_hub.cluster.ec2 import PERIOD, CapacityBlocks, connect
from gpudev_hub.cluster.kubernetes import KubernetesCluster
from gpudev_hub.core.model import CapacityBlock, Node
from service_world import SteppingClock

LABELS = {"gpudev/pool": "h100", "gpudev/capacity-reservation": "cr-1"}
NOON = 1_893_499_200_000
"""1 Jan 2030, 12:00 UTC."""


def items(labels: dict[str, str]) -> list[dict[str, object]]:
    """A GPU node with these labels, and a node of no pool that names a block, too."""
    return [
        {
            "kind": "Node",
            "metadata": {"name": name, "labels": labels_},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
        for name, labels_ in (
            ("node-1", labels),
            ("cpu-1", {"gpudev/capacity-reservation": "cr-of-others"}),
        )
    ]


@asynccontextmanager
async def api(labels: dict[str, str]) -> AsyncIterator[client.CoreV1Api]:
    """Nodes by list; watches show nothing."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            await asyncio.Event().wait()
        found = items(labels) if request.path.endswith("/nodes") else []
        return web.json_response({"items": found, "metadata": {"resourceVersion": "1"}})

    app = web.Application()
    app.router.add_get("/api/v1/{kind}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    async with client.ApiClient(client.Configuration(host=f"http://{host}:{port}")) as found:
        yield client.CoreV1Api(found)
    await runner.cleanup()


async def test_an_extension_reaches_the_plan_without_a_change_of_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    clock = SteppingClock()
    with serve(FakeEc2({"cr-1": Block("2030-01-01T12:00:00Z")})) as ec2:
        blocks = CapacityBlocks(lambda: connect("us-east-2", ec2.url), "us-east-2", clock)
        async with api(LABELS) as kubernetes, asyncio.timeout(60):
            cluster = KubernetesCluster(kubernetes, "gpudev-servers", clock.now, blocks)
            assert (await ends(cluster)) == [CapacityBlock("cr-1"), CapacityBlock("cr-of-others")]
            asking = asyncio.create_task(blocks.run())
            watch = cluster.watch()
            seen = [node async for node in first(watch, 2)]
            assert block_of(seen[-1]) == CapacityBlock("cr-1", NOON)
            assert await ends(cluster) == [CapacityBlock("cr-1", NOON), CapacityBlock("cr-of-others")]
            ec2.blocks["cr-1"].ends = "2030-01-01T13:00:00Z"
            clock.advance(PERIOD)
            (seen_later,) = [node async for node in first(watch, 1)]
            assert block_of(seen_later) == CapacityBlock("cr-1", NOON + 3_600_000)
            assert ec2.asked == [["cr-1"], ["cr-1"]], "blocks of nodes in no pool are not asked for"
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await watch.aclose()  # type: ignore[attr-defined]


async def ends(cluster: KubernetesCluster) -> list[CapacityBlock | None]:
    return [node.block for node in await cluster.nodes()]


def block_of(seen: object) -> CapacityBlock | None:
    assert isinstance(seen, list)
    node = seen[0]
    assert isinstance(node, Node)
    return node.block


async def first(watch: AsyncIterator[object], count: int) -> AsyncIterator[object]:
    for _ in range(count):
        yield await anext(watch)
