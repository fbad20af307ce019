"""The facts of an installation, collected over HTTP: answers, refusals and silence of each part."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from kubernetes_asyncio import client

from cluster_world import settings_of
from dynamodb_local import ENVIRONMENT
from gpudev_hub.auth.check import Check
from gpudev_hub.cluster_doctor import Doctor
from gpudev_hub.core.model import HOUR, Node
from gpudev_hub.core.views.doctor import Finding
from gpudev_hub.service.hubclient import HubClient
from gpudev_hub.stores.dynamodb_calls import connect

NOW = 1_893_456_000_000
DATE = "Tue, 01 Jan 2030 00:00:05 GMT"


def node(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"gpudev/pool": "h100"}},
        "spec": {},
        "status": {
            "allocatable": {"nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "32"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(namespace: str, component: str, on: str, number: int = 0) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"{component}-{on}-{number}",
            "uid": f"{component}-{on}-{number}",
            "namespace": namespace,
            "labels": {"app.kubernetes.io/component": component, "app.kubernetes.io/managed-by": "gpudev"},
        },
        "spec": {"nodeName": on},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


class Parts:
    """Kubernetes, DynamoDB and the Hub at one address; a test changes what they say."""

    def __init__(self) -> None:
        self.status: dict[str, int] = {}
        """Of what is refused: the first part of the path, and the status."""
        self.recovery = "ENABLED"
        self.pods = [pod("gpudev-servers", "policy-probe", f"node-{n}") for n in (1, 2)]
        self.ours = [pod("gpudev", "prepull", f"node-{n}") for n in (1, 2)]
        self.ours += [pod("gpudev", "bastion", "cpu-1", n) for n in (1, 2)]
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        """Any request."""
        part = request.headers.get("X-Amz-Target", request.path).split("/")[1 if request.path != "/" else 0]
        self.asked.append(
            f"{request.method} {request.path} {request.headers.get('X-Amz-Target', '')}".strip()
        )
        if status := self.status.get(part, self.status.get(request.path, 0)):
            return web.json_response({"message": "no", "__type": "x#AccessDeniedException"}, status=status)
        if part.startswith("DynamoDB"):
            return web.json_response(self._table(part))
        if part == "hub":
            return web.json_response({"items": [], "_pagination": {"next": None}})
        items: list[dict[str, Any]] = {
            "/api/v1/nodes": [node("node-1"), node("node-2")],
            "/api/v1/pods": self.pods + self.ours,
            "/api/v1/namespaces/gpudev/pods": self.ours,
        }[request.path]
        metadata = {"resourceVersion": "1"}
        return web.json_response({"items": items, "metadata": metadata}, headers={"Date": DATE})

    def _table(self, target: str) -> dict[str, Any]:
        if target.endswith("DescribeContinuousBackups"):
            recovery = {"PointInTimeRecoveryStatus": self.recovery}
            return {
                "ContinuousBackupsDescription": {
                    "ContinuousBackupsStatus": "ENABLED",
                    "PointInTimeRecoveryDescription": recovery,
                }
            }
        return {}


@pytest_asyncio.fixture
async def address(parts: Parts) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", parts.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    yield f"http://{host}:{port}"
    await runner.cleanup()


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


async def look(address: str, known: tuple[Node, ...] | None = None) -> dict[str, Finding]:
    settings = settings_of(
        policy_probe=True, bastion={"host": "ssh.gpudev.example"}, hub_api=f"{address}/hub/api"
    )
    hub = HubClient(settings.hub_api, "service-token")

    async def github() -> list[Check]:
        return [Check("App", True, "gpudev"), Check("clock", False, "900 s behind", "Set the clock.")]

    try:
        async with client.ApiClient(client.Configuration(host=address)) as api:
            doctor = Doctor(
                settings,
                client.CoreV1Api(api),
                connect(region="us-east-2", endpoint_url=address),
                hub,
                github,
                lambda: NOW,
                None if known is None else lambda: known,
            )
            return {one.id: one for one in await doctor.look()}
    finally:
        await hub.close()


async def test_all_is_well_but_github(parts: Parts, address: str) -> None:
    found = await look(address)
    assert {key for key, one in found.items() if not one.ok} == {"github"}, found
    assert found["github"].found == "1 of 2 facts do not hold: clock"
    assert found["clock"].found == "as at the Kubernetes API"
    assert all(line.startswith(("GET", "POST / DynamoDB")) for line in parts.asked), "it changes nothing"
    writes = ("Put", "Update", "Delete", "Transact")
    assert not [line for line in parts.asked if any(f".{word}" in line for word in writes)], parts.asked


@pytest.mark.parametrize(
    ("refused", "wrong"),
    [
        ("DynamoDB_20120810.GetItem", {"store"}),
        ("hub", {"hub"}),
        (
            "/api/v1/nodes",
            {"cluster", "clock", "nodes", "gpus", "efa", "probes", "prepull", "bastion", "ends"},
        ),
        (
            "/api/v1/namespaces/gpudev/pods",
            {"cluster", "clock", "nodes", "gpus", "efa", "probes", "prepull", "bastion", "ends"},
        ),
        ("DynamoDB_20120810.DescribeContinuousBackups", set()),
    ],
)
async def test_a_part_that_refuses(parts: Parts, address: str, refused: str, wrong: set[str]) -> None:
    parts.status[refused] = 400 if refused.startswith("DynamoDB") else 403
    found = await look(address)
    assert {key for key, one in found.items() if not one.ok} == wrong | {"github"}, found
    assert all(one.todo for one in found.values() if not one.ok)


async def test_what_the_cluster_shows(parts: Parts, address: str) -> None:
    parts.recovery = "DISABLED"
    parts.pods[1]["status"]["conditions"][0]["status"] = "False"
    parts.ours[0]["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    parts.ours[3]["status"]["conditions"] = []
    found = await look(address)
    assert {key for key, one in found.items() if not one.ok} >= {"backups", "probes", "prepull", "bastion"}
    assert "node-2" in found["probes"].found
    assert "node-1" in found["prepull"].found
    assert found["nodes"].found == "node-2 is drained (its policy probe is not ready)"
    assert found["bastion"].found == "1 of at least 2 pods are ready"


async def test_what_the_service_knows_of_nodes(parts: Parts, address: str) -> None:
    """For one, when their capacity blocks end, which only the service asks for."""
    nodes = tuple(Node(f"node-{n}", "h100", 8, "", until=NOW + n * HOUR) for n in (1, 2))
    assert "node-1 at 01:00 UTC, node-2 at 02:00 UTC" in (await look(address, nodes))["ends"].found
