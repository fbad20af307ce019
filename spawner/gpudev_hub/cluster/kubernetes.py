"""The cluster port for Kubernetes: nodes and pods by list and watch. It creates nothing.

``look`` alone tells that a server is gone: by a read of its own, and if the nodes it ran on report
(invariant 8).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, Final

import aiohttp
from kubernetes_asyncio.client import ApiException, CoreV1Api, V1DeleteOptions, V1Preconditions

from gpudev_hub.core.model import MINUTE, Claim, Millis, Node, Presence
from gpudev_hub.core.ports import ClusterUnavailable, ServerSight

from .ec2 import CapacityBlocks
from .kube_nodes import NodeFacts, node_facts, nodes_of
from .kube_pods import PodFacts, foreign_gpus, pod_facts, proven_nodes, sight_of
from .labels import object_name, selector

REQUEST_TIMEOUT: Final = 10.0
"""Seconds for one call."""
WATCH_SECONDS: Final = 240
"""After so long the API server ends a watch in order, and everything is listed anew."""
PAGE: Final = 500
LOGS_AT_ONCE: Final = 2
"""Logs of pods that are read at once, whoever asks."""
KEPT: Final[Millis] = 1 * MINUTE
"""Pods that have ended are left so long, for who wants to know why."""

log = logging.getLogger(__name__)

_Watched = tuple[str, dict[str, Any]]


class KubernetesCluster:
    """All nodes, those without a pool's label too, and pods that carry a reservation's."""

    def __init__(
        self,
        api: CoreV1Api,
        namespace: str,
        now: Callable[[], Millis],
        blocks: CapacityBlocks | None = None,
        *,
        policy_probe: bool = False,
    ) -> None:
        """``namespace``: of the servers. ``api`` is closed, and ``blocks`` is run, by who made it.

        Without ``blocks`` nobody asks when capacity blocks end. ``policy_probe``: only nodes with a Ready
        policy probe take new servers.
        """
        self._api = api
        self._namespace = namespace
        self._now = now
        self._policy_probe = policy_probe
        self._blocks = blocks
        if blocks is not None:
            blocks.on_change = self._blocks_changed
        self._nodes: dict[str, NodeFacts] = {}
        self._pods: dict[str, PodFacts] = {}
        """By uid."""
        self._listing: list[set[str]] = []
        """For each list under way: nodes (names) and pods (uids) that a watch has brought since it began."""
        self._hints: set[tuple[str, int] | None] = set()
        """Servers to look at; ``None``: the nodes, since EC2 has said something new of their blocks."""
        self._hinted = asyncio.Event()
        self._reading_logs = asyncio.Semaphore(LOGS_AT_ONCE)

    # Lists

    async def nodes(self) -> list[Node]:
        """All nodes, as a list shows them now."""
        await self._list()
        return self._seen_nodes()

    async def servers(self) -> list[ServerSight]:
        """Every server of which anything is left, as of the last list of pods (``nodes`` makes it)."""
        sights = [self._sight(*key) for key in sorted({pod.server for pod in self._ours() if pod.server})]
        return [sight for sight in sights if sight.presence is not Presence.ABSENT]

    async def look(self, claim: Claim) -> ServerSight:
        """What is seen of one attempt now; ``UNKNOWN`` when that can't be learnt."""
        names = [part.node for part in claim.allocation]
        try:
            # By name: to find them by label, the API server would go through all pods there are.
            found, silent = await asyncio.gather(
                asyncio.gather(*(self._pod(*claim.key, rank) for rank in range(len(names)))),
                asyncio.gather(*(self._is_silent(name) for name in names)),
            )
        except ClusterUnavailable as error:
            return ServerSight(*claim.key, Presence.UNKNOWN, detail=str(error))
        pods = [pod for pod in found if pod is not None and pod.server == claim.key]
        return sight_of(*claim.key, pods, [n for n, quiet in zip(names, silent, strict=True) if quiet], names)

    async def _pod(self, id: str, attempt: int, rank: int) -> PodFacts | None:
        name = object_name(id, attempt, rank)
        try:
            found = await self._call(self._api.read_namespaced_pod, name=name, namespace=self._namespace)
        except _NotFound:
            return None
        return pod_facts(found, self._namespace)

    async def _is_silent(self, name: str) -> bool:
        try:
            found = await self._call(self._api.read_node, name=name)
        except _NotFound:
            return False  # the node is gone, and with it what ran there
        return node_facts(found).silent

    async def _list(self) -> tuple[str, str]:
        """List everything; returns the versions from which to watch nodes and pods.

        What a watch brings meanwhile is newer than the list, and stays.
        """
        newer: set[str] = set()
        self._listing.append(newer)
        try:
            nodes, node_version = await self._items(self._api.list_node)
            pods, pod_version = await self._items(self._api.list_pod_for_all_namespaces)
        finally:
            self._listing.remove(newer)
        seen = {node.name: node for node in map(node_facts, nodes) if node.name not in newer}
        self._nodes = seen | {name: node for name, node in self._nodes.items() if name in newer}
        self._ask_for_blocks()
        found = (pod_facts(item, self._namespace) for item in pods)
        there = {pod.uid: pod for pod in found if pod is not None and pod.uid not in newer}
        self._pods = there | {uid: pod for uid, pod in self._pods.items() if uid in newer}
        return node_version, pod_version

    def _seen_nodes(self) -> list[Node]:
        foreign = foreign_gpus(self._pods.values())
        sights = self._blocks.sights if self._blocks is not None else {}
        return nodes_of(self._nodes.values(), foreign, self._proven(), sights)

    def _proven(self) -> frozenset[str] | None:
        return proven_nodes(self._pods.values()) if self._policy_probe else None

    def _ask_for_blocks(self) -> None:
        if self._blocks is not None:
            self._blocks.want({node.block for node in self._nodes.values() if node.pool and node.block})

    def _blocks_changed(self) -> None:
        self._hints.add(None)
        self._hinted.set()

    def _ours(self) -> list[PodFacts]:
        return [pod for pod in self._pods.values() if pod.server is not None]

    def _sight(self, id: str, attempt: int) -> ServerSight:
        pods = [pod for pod in self._pods.values() if pod.server == (id, attempt)]
        return sight_of(id, attempt, pods, [node.name for node in self._nodes.values() if node.silent])

    async def forget_ended(self, held: Collection[tuple[str, int]]) -> None:
        """Remove the objects of pods that ended a while ago: they hold nothing but disk."""
        for pod in self._ours():
            if pod.server in held or not pod.gone or pod.leaving:
                continue
            if (pod.over_since or 0) < self._now() - KEPT:
                try:
                    await self._delete(pod)
                except ClusterUnavailable as error:
                    log.warning("the pod %s, which has ended, cannot be deleted now: %s", pod.name, error)

    # Watching

    async def watch(self) -> AsyncIterator[ServerSight | list[Node]]:
        """Servers that came or went, and all nodes when one has changed. One watcher at a time."""
        node_version, pod_version = await self._list()
        yield self._seen_nodes()
        changes: asyncio.Queue[_Watched | Exception] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._follow(changes, self._api.list_node, node_version), name="watch-nodes"),
            asyncio.create_task(
                self._follow(changes, self._api.list_pod_for_all_namespaces, pod_version), name="watch-pods"
            ),
            asyncio.create_task(self._follow_hints(changes), name="watch-hints"),
        ]
        try:
            while True:
                change = await changes.get()
                if isinstance(change, Exception):
                    raise ClusterUnavailable(f"the watch was interrupted: {change}") from change
                for seen in self._changed(*change):
                    yield seen
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, changes: asyncio.Queue[_Watched | Exception], method: Any, version: str) -> None:
        """Everything that happens from ``version`` on, until the watch ends; then that it has."""
        try:
            answer = await method(
                watch=True,
                resource_version=version,
                timeout_seconds=WATCH_SECONDS,
                _request_timeout=aiohttp.ClientTimeout(total=WATCH_SECONDS + 10, connect=REQUEST_TIMEOUT),
                _preload_content=False,
            )
            if answer.status >= 400:
                raise ClusterUnavailable(f"the Kubernetes API answered {answer.status} to a watch")
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ClusterUnavailable(event["object"].get("message", "no reason given"))
                changes.put_nowait((event["type"], event["object"]))
            raise ClusterUnavailable("its time limit was reached")
        except Exception as error:
            # Whatever it was: who waits for changes would wait for ever.
            changes.put_nowait(error)

    async def _follow_hints(self, changes: asyncio.Queue[_Watched | Exception]) -> None:
        while True:
            await self._hinted.wait()
            self._hinted.clear()
            while self._hints:
                changes.put_nowait(("HINT", {"kind": "Hint", "server": self._hints.pop()}))

    def _changed(self, kind: str, item: dict[str, Any]) -> list[ServerSight | list[Node]]:
        """What one event of a watch shows that is new."""
        if item["kind"] == "Hint":
            server = item["server"]
            return [self._seen_nodes() if server is None else self._sight(*server)]
        if item["kind"] == "Node":
            name, before = item["metadata"]["name"], self._nodes.get(item["metadata"]["name"])
            for newer in self._listing:
                newer.add(name)
            after = None if kind == "DELETED" else node_facts(item)
            if after is None:
                self._nodes.pop(name, None)
            else:
                self._nodes[name] = after
            # Kubelets report every few seconds that nothing has changed.
            if before == after:
                return []
            self._ask_for_blocks()
            heard = before is None or after is None or before.silent != after.silent
            there = (
                {pod.server for pod in self._ours() if pod.node == name and pod.server} if heard else set()
            )
            return [self._seen_nodes(), *(self._sight(*key) for key in sorted(there))]
        before_all = (foreign_gpus(self._pods.values()), self._proven())
        uid = item["metadata"]["uid"]
        for newer in self._listing:
            newer.add(uid)
        before_pod = self._pods.pop(uid, None)
        after_pod = None if kind == "DELETED" else pod_facts(item, self._namespace)
        if after_pod is not None:
            self._pods[uid] = after_pod
        seen: list[ServerSight | list[Node]] = []
        if before_all != (foreign_gpus(self._pods.values()), self._proven()):
            seen.append(self._seen_nodes())
        key = next((pod.server for pod in (after_pod, before_pod) if pod is not None and pod.server), None)
        if key is not None and before_pod != after_pod:
            seen.append(self._sight(*key))
        return seen

    def hint(self, id: str, attempt: int) -> None:
        """Something was started: look now."""
        self._hints.add((id, attempt))
        self._hinted.set()

    # The rest

    async def remove(self, id: str, attempt: int) -> None:
        """Have all pods of an attempt deleted, in order; whether they are gone is for ``look`` to tell."""
        items, _ = await self._items(
            self._api.list_namespaced_pod, namespace=self._namespace, label_selector=selector(id, attempt)
        )
        for item in items:
            pod = pod_facts(item, self._namespace)
            if pod is not None and not pod.leaving:
                await self._delete(pod)

    async def _delete(self, pod: PodFacts) -> None:
        """Never with a grace of its own, which could be none: the object would go before the processes."""
        try:
            await self._call(
                self._api.delete_namespaced_pod,
                name=pod.name,
                namespace=self._namespace,
                body=V1DeleteOptions(preconditions=V1Preconditions(uid=pod.uid)),
            )
        except _NotFound:
            pass

    async def logs(self, id: str, attempt: int, lines: int) -> dict[str, str]:
        """The last lines by ``jupyter``, ``sshd`` … of rank 0, and ``sshd-1`` … of the others."""
        ranks = sorted({pod.rank for pod in self._pods.values() if pod.server == (id, attempt)})
        found: dict[str, str] = {}
        for rank in ranks:
            # Each may be as large as a node keeps of a container's log, several times over in memory.
            async with self._reading_logs:
                try:
                    text = await self._call(
                        self._api.read_namespaced_pod_log,
                        name=object_name(id, attempt, rank),
                        namespace=self._namespace,
                        tail_lines=4 * lines,
                    )
                except (_NotFound, _NotYet):
                    continue
                for name, said in split_log(text, lines).items():
                    found[name if rank == 0 else f"{name}-{rank}"] = said
        return found

    def devices(self, node: str) -> dict[str, str]:
        """EFA interfaces and huge pages, where the node has them to give."""
        facts = self._nodes.get(node)
        return dict(facts.devices) if facts is not None else {}

    async def _items(self, method: Any, **arguments: Any) -> tuple[list[dict[str, Any]], str]:
        """A whole list, page by page, and the version it is of. Never from a cache that may be old."""
        items: list[dict[str, Any]] = []
        page = ""
        while True:
            answer = await self._call(method, limit=PAGE, _continue=page, **arguments)
            items += answer["items"]
            page = answer["metadata"].get("continue", "")
            if not page:
                return items, answer["metadata"]["resourceVersion"]

    async def _call(self, method: Any, **arguments: Any) -> Any:
        """One call; raises ``ClusterUnavailable`` for everything but what was asked for missing."""
        what = f"{method.__name__.replace('_', ' ')} {arguments.get('name', '')}".strip()
        try:
            answer = await method(_request_timeout=REQUEST_TIMEOUT, _preload_content=False, **arguments)
            body = await answer.read()
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error, ApiException):
                raise _refusal(what, error.status, str(error.reason)) from error
            raise ClusterUnavailable(
                f"the Kubernetes API does not answer ({what}): {type(error).__name__} {error}".rstrip()
            ) from error
        if answer.status >= 400:
            raise _refusal(what, answer.status, body.decode(errors="replace")[:300])
        if method.__name__.endswith("_log"):
            return body.decode(errors="replace")
        return json.loads(body)


class _NotFound(Exception):
    """There is no such object."""


class _NotYet(Exception):
    """The object is not in a state to answer this."""


def _refusal(what: str, status: int | None, said: str) -> Exception:
    if status == 404:
        return _NotFound(what)
    if status == 400:
        return _NotYet(said)
    return ClusterUnavailable(f"the Kubernetes API answered {status} to {what}: {said}")


def split_log(text: str, lines: int) -> dict[str, str]:
    """What each part of a server said last; its container prints ``part| line``."""
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        part, bar, rest = line.partition("| ")
        said.setdefault(part if bar and part.isalpha() else "launcher", []).append(rest if bar else line)
    return {part: "\n".join(rows[-lines:]) for part, rows in said.items()}
