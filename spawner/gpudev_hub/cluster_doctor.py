"""Collects the facts of an installation on Kubernetes, with the service's rights only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError
from kubernetes_asyncio.client import ApiException, CoreV1Api

from .auth.check import Check
from .auth.limits import server_time
from .cluster.kubernetes import KubernetesCluster
from .cluster.labels import COMPONENT, EFA, REQUEST_TIMEOUT
from .cluster_settings import ClusterSettings
from .core.model import Millis, Node
from .core.ports import ClusterUnavailable, HubUnavailable, StoreUnavailable
from .core.views.doctor import Facts, Finding, PodFact, examine
from .service.hubclient import HubClient
from .stores.dynamodb.store import DynamoStore

NAMESPACE: Final = "gpudev"
"""The namespace in which the chart installs everything except servers."""
OURS: Final = "app.kubernetes.io/managed-by=gpudev"


@dataclass(frozen=True)
class Doctor:
    """Checks the whole installation on each call. The caller closes the objects that it passes in."""

    settings: ClusterSettings
    api: CoreV1Api
    table_client: Any
    """From ``dynamodb.calls.connect``."""
    hub: HubClient
    github: Callable[[], Awaitable[list[Check]]]
    now: Callable[[], Millis]
    known: Callable[[], Iterable[Node]] | None = None
    """The service's nodes, with the ends of capacity blocks. ``None``: the doctor observes the nodes."""

    async def look(self) -> list[Finding]:
        """Return all findings, in the order in which you should correct faults."""
        store, backups, hub, cluster, github = await asyncio.gather(
            self._store(), self._backups(), self._hub(), self._cluster(), self.github()
        )
        failed = tuple(check.name for check in github if not check.ok)
        facts = Facts(
            now=self.now(),
            pools=self.settings.make_policy().pools,
            policy_probe=self.settings.policy_probe,
            bastion=self.settings.bastion is not None,
            store=store,
            backups=backups,
            hub=hub,
            github=(len(github), failed),
            **cluster,
        )
        return examine(facts)

    async def _store(self) -> str:
        store = DynamoStore(self.settings.store.table, self.table_client)
        try:
            await store.peek()
        except StoreUnavailable as error:
            return str(error)
        finally:
            await store.close()
        return ""

    async def _backups(self) -> bool | str:
        try:
            answer = await asyncio.to_thread(
                self.table_client.describe_continuous_backups, TableName=self.settings.store.table
            )
        except ClientError as error:
            return str(error.response.get("Error", {}).get("Code", "no reason given"))
        except BotoCoreError as error:
            return type(error).__name__
        found = answer["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        return bool(found.get("PointInTimeRecoveryStatus") == "ENABLED")

    async def _hub(self) -> str:
        try:
            await self.hub.known_servers()
        except HubUnavailable as error:
            return str(error)
        return ""

    async def _cluster(self) -> dict[str, Any]:
        """Return the fields of ``Facts`` that come from the Kubernetes API."""
        cluster = KubernetesCluster(
            self.api, self.settings.namespace, self.now, policy_probe=self.settings.policy_probe
        )
        try:
            nodes = await cluster.nodes()
            pods, date = await self._pods()
        except ClusterUnavailable as error:
            return {"cluster": str(error)}
        return {
            "cluster_time": date,
            "nodes": tuple(nodes if self.known is None else self.known()),
            "efa": {node.name: int(cluster.devices(node.name).get(EFA, 0)) for node in nodes},
            "pods": tuple(map(_pod, pods)),
        }

    async def _pods(self) -> tuple[list[dict[str, Any]], Millis | None]:
        """Return the pods of the installation, and the ``Date`` of the answer."""
        what = f"the Kubernetes API does not answer (pods of {NAMESPACE})"
        try:
            # The library can return the raw answer, although its types say otherwise.
            answer: Any = await self.api.list_namespaced_pod(
                NAMESPACE, label_selector=OURS, _request_timeout=REQUEST_TIMEOUT, _preload_content=False
            )
            body = await answer.read()
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterUnavailable(f"{what}: {type(error).__name__}") from error
        if answer.status >= 400:
            raise ClusterUnavailable(f"{what}: it answered {answer.status}")
        return json.loads(body)["items"], server_time(answer.headers)


def _pod(pod: Mapping[str, Any]) -> PodFact:
    conditions = {entry["type"]: entry["status"] for entry in pod.get("status", {}).get("conditions", ())}
    return PodFact(
        component=pod["metadata"].get("labels", {}).get(COMPONENT, ""),
        node=pod["spec"].get("nodeName"),
        ready=conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"],
    )
