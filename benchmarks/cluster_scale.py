"""A large cluster: 200 simulated nodes of 8 GPUs, 1,000 servers live, 1,000 reservations queued.

The real service uses a real Kubernetes API and DynamoDB Local; kwok simulates nodes and pods. A Hub in memory
turns each start into a pod at once. No sshd is probed.

``python -m harness prepare --all`` once, for kwok, then
``PYTHONPATH=tests/cluster python -m harness run -- python -m benchmarks.cluster_scale``
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cluster"))

from kubernetes_asyncio import client, config

from dynamodb_local import ENVIRONMENT, DynamoDBLocal
from fakehub import Servers
from gpudev_hub.clock import Clock
from gpudev_hub.cluster.kubernetes import KubernetesCluster
from gpudev_hub.cluster.labels import ATTEMPT, CONTAINER, GPU, RANK, RANKS, RESERVATION, object_name, selector
from gpudev_hub.core.model import Owner, Reservation, State
from gpudev_hub.core.policy import Allowances
from gpudev_hub.stores.dynamodb.store import DynamoStore
from harness.cluster import Cluster
from harness.kwok import make_simulated_nodes, start_kwok
from manifests import surroundings
from service_world import POLICY, ServiceWorld

NODES, QUEUED = 200, 1_000
LIVE = [4, 1, 1, 1, 1] * NODES
"""GPUs of the servers, which fill every node."""
REQUESTS = 300
"""Many, because the mean of a few depends on what else the machine does."""
RELEASES, PASSES = 30, 5
REST = 120
"""Seconds."""
RESTRICTED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""The security settings that the namespace requires."""
ACCOUNT = "system:serviceaccount:gpudev:gpudev-service"
NAMESPACE = "gpudev-servers"
"""The only namespace in which that account may delete pods."""


class SimulatedServers(KubernetesCluster, Servers):
    """Observe pods as the service does, and create and delete them as an administrator."""

    def __init__(self, api: client.CoreV1Api, namespace: str, admin: Cluster) -> None:
        super().__init__(api, namespace, Clock().now)
        self.running: set[tuple[str, int]] = set()
        self.world: ServiceWorld
        self._admin = admin
        self._path = f"/api/v1/namespaces/{namespace}/pods"

    def launch(self, id: str, attempt: int, ranks: int) -> None:
        """Create one pod on its planned node."""
        record = self.world.service.view.reservations[id]
        labels = {RESERVATION: id, ATTEMPT: str(attempt), RANK: "0", RANKS: str(ranks)}
        limits = {GPU: str(record.request.shape.gpus)}
        pod = {
            "metadata": {"name": object_name(id, attempt), "labels": labels},
            "spec": {
                "nodeName": record.allocation[0].node,
                # Delete it at once, because only the service is measured.
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": CONTAINER,
                        "image": "none",
                        "resources": {"limits": limits},
                        "securityContext": RESTRICTED,
                    }
                ],
            },
        }
        self._admin.api.post(self._path, json=pod).raise_for_status()
        self.running.add((id, attempt))
        self.hint(id, attempt)

    def runs(self, id: str, attempt: int) -> bool:
        return (id, attempt) in self.running

    def end(self, id: str, attempt: int, _detail: str, /) -> None:
        """Delete the pod."""
        self._admin.api.delete(self._path, params={"labelSelector": selector(id, attempt)}).raise_for_status()
        self.running.discard((id, attempt))


async def measure(folder: Path, cluster: Cluster, database: DynamoDBLocal) -> dict[str, Any]:
    """Fill the cluster, queue requests, then measure."""
    await config.load_kube_config(str(cluster.kubeconfig("gpudev", "gpudev-service", 3 * 3600)))
    async with client.ApiClient() as api:
        servers = SimulatedServers(client.CoreV1Api(api), NAMESPACE, cluster)
        allowances = Allowances(running_gpus=100_000, queued_requests=100_000)
        world = servers.world = ServiceWorld(
            folder,
            policy=replace(POLICY, allowances=allowances),
            cluster=servers,  # type: ignore[arg-type]
            make_store=lambda _, failpoint: DynamoStore(
                database.table(), database.client(timeout=20), failpoint
            ),
        )
        before = _memory()
        service = await world.start()
        await world.until(lambda: len(service.view.nodes) >= NODES, "nodes", 60)
        for n, gpus in enumerate(LIVE):
            await world.reserve(_owner(world, n), gpus=gpus, hours=4 + n % 8)
        await world.until(lambda: _count(world, State.READY) == len(LIVE), "all ready", 600)
        for n in range(QUEUED):
            await world.reserve(_owner(world, n), gpus=(1, 2, 4, 8)[n % 4], hours=1 + n % 8)
        await world.until(lambda: _count(world, State.QUEUED) == QUEUED, "all queued", 60)
        figures: dict[str, Any] = {"memory_mib": _memory(), "memory_before_mib": before}
        figures["request → answer, ms"] = await _asked(world)
        figures["release → end committed, ms"] = await _released(world)
        passes = []
        for _ in range(PASSES):
            begun = time.perf_counter()
            await service.reconcile()
            passes.append(time.perf_counter() - begun)
        figures["reconcile_ms"] = round(statistics.median(passes) * 1000)
        await asyncio.sleep(10)
        calls = cluster.calls(ACCOUNT)
        used = time.process_time()
        await asyncio.sleep(REST)
        asked = Counter(cluster.calls(ACCOUNT))
        asked.subtract(calls)
        figures["calls_per_minute"] = {
            f"{verb} {what}": round(n * 60 / REST, 1) for (verb, what), n in asked.items() if n
        }
        figures["cpu_at_rest"] = round((time.process_time() - used) / REST, 3)
        figures["memory_after_mib"] = _memory()
        await world.close()
        return figures


async def _asked(world: ServiceWorld) -> dict[str, float]:
    """Return milliseconds from each request to its answer, and the store's part; then cancel the requests.

    The median does not depend on checkpoints; the longest may have waited for one.
    """
    commits = world.service.metrics.commits
    taken, stored, used, made = [], [], [], []
    for n in range(REQUESTS):
        begun, cpu, before = time.perf_counter(), time.process_time(), commits.seconds
        made.append(await world.reserve(_owner(world, n), gpus=(1, 2, 4, 8)[n % 4], hours=2))
        taken.append(time.perf_counter() - begun)
        used.append(time.process_time() - cpu)
        stored.append(commits.seconds - before)
    for record in reversed(made):
        await world.service.end(record.id, record.owner.subject)
    figures = {
        "median": statistics.median(taken),
        "p95": statistics.quantiles(taken, n=20)[-1],
        "max": max(taken),
        "median of the store": statistics.median(stored),
        "median of CPU": statistics.median(used),
    }
    return {name: round(seconds * 1000, 1) for name, seconds in figures.items()}


async def _released(world: ServiceWorld) -> dict[str, int]:
    """Return milliseconds from each release to the commit of its end and of what starts then."""
    taken = []
    for _ in range(RELEASES):
        records = world.service.view.reservations
        record = next(r for r in records.values() if r.state is State.READY)
        begun = time.perf_counter()
        await world.service.end(record.id, record.owner.subject)
        await world.until(lambda gone=record.id: gone not in world.service.view.reservations, "its end", 60)  # type: ignore[misc]
        taken.append(time.perf_counter() - begun)
    return {"median": round(statistics.median(taken) * 1000), "max": round(max(taken) * 1000)}


def _count(world: ServiceWorld, state: State) -> int:
    records: list[Reservation] = list(world.service.view.reservations.values())
    return sum(record.state is state for record in records)


def _owner(world: ServiceWorld, n: int) -> Owner:
    name = f"u{n}"
    world.hub.users.add(name)
    return Owner(f"local:{name}", name, name)


def _memory() -> int:
    """Return the resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def main() -> None:
    """Print the figures as JSON."""
    os.environ.update(ENVIRONMENT)
    database = DynamoDBLocal()
    try:
        with (
            Cluster.attach() as cluster,
            tempfile.TemporaryDirectory() as folder,
        ):
            cluster.apply(*surroundings())
            for node in cluster.nodes:
                cluster.cordon(node.name)
            # On two cores, kwok cannot renew 200 leases in time. Do not count these nodes as silent.
            cluster.restart_controller_manager(["--node-monitor-grace-period=3600s"])
            start_kwok(cluster)
            make_simulated_nodes(cluster, NODES)
            figures = asyncio.run(measure(Path(folder), cluster, database))
            print(json.dumps(figures, indent=1, ensure_ascii=False))
            # Otherwise pods of nodes that are no longer simulated would stay in the cluster.
            cluster.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods", timeout=120).raise_for_status()
    finally:
        database.close()


if __name__ == "__main__":
    main()
