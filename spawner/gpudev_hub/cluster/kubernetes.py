"""The cluster port for Kubernetes: it lists and watches nodes and pods, and creates nothing.

Only ``look`` proves that a server is gone: it reads the pods by name, and their nodes must report
(invariant 8).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from typing import Any, Final, TypeVar

import aiohttp
from kubernetes_asyncio.client import ApiException, CoreV1Api, V1DeleteOptions, V1Preconditions

from gpudev_hub.core.model import MINUTE, Claim, Millis, Node, Presence
from gpudev_hub.core.ports import ClusterUnavailable, ServerSight

from .ec2 import CapacityBlocks
from .kube_nodes import NodeFacts, node_facts, nodes_of
from .kube_pods import PodFacts, foreign_gpus, pod_facts, proven_nodes, sight_of
from .labels import REQUEST_TIMEOUT, object_name, selector

WATCH_SECONDS: Final = 240
"""Seconds after which the API server ends a watch normally; then everything is listed again."""
PAGE: Final = 500
LOGS_AT_ONCE: Final = 2
"""Maximum number of pod logs read at once."""
KEPT: Final[Millis] = 1 * MINUTE
"""Milliseconds for which ended pods are kept, so that people can see why they ended."""

log = logging.getLogger(__name__)

_Watched = tuple[str, dict[str, Any]]
_Facts = TypeVar("_Facts", NodeFacts, PodFacts)


class KubernetesCluster:
    """Observes all nodes, including those without a pool, and the pods of servers."""

    def __init__(
        self,
        api: CoreV1Api,
        namespace: str,
        now: Callable[[], Millis],
        blocks: CapacityBlocks | None = None,
        *,
        policy_probe: bool = False,
    ) -> None:
        """Observe the servers in ``namespace``. The caller closes ``api`` and runs ``blocks``.

        Without ``blocks``, the ends of capacity blocks are not read. With ``policy_probe``, new servers start
        only on nodes with a Ready policy probe.
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
        """For each list in progress, the nodes (names) and pods (uids) that a watch reported since it
        began."""
        self._hints: set[tuple[str, int] | None] = set()
        """Servers to look at. ``None`` stands for the nodes, after a new answer of EC2 about their blocks."""
        self._hinted = asyncio.Event()
        self._reading_logs = asyncio.Semaphore(LOGS_AT_ONCE)

    # Lists

    async def nodes(self) -> list[Node]:
        """List nodes and pods, and return all nodes."""
        await self._list()
        return self._seen_nodes()

    async def servers(self) -> list[ServerSight]:
        """Return every server with a pod, as of the last list of pods, which ``nodes`` makes."""
        by_server: dict[tuple[str, int], list[PodFacts]] = {}
        for pod in self._pods.values():
            if pod.server is not None:
                by_server.setdefault(pod.server, []).append(pod)
        silent = self._silent_nodes()
        sights = [sight_of(*key, pods, silent) for key, pods in sorted(by_server.items())]
        return [sight for sight in sights if sight.presence is not Presence.ABSENT]

    async def look(self, claim: Claim) -> ServerSight:
        names = [part.node for part in claim.allocation]
        try:
            # Read by name, because a search by label makes the API server go through all pods.
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
            return False  # the node is gone, with everything that ran there
        return node_facts(found).silent

    async def _list(self) -> tuple[str, str]:
        """List nodes and pods; return the versions from which to watch each of them.

        Objects that a watch reports meanwhile are newer than the list, so they are kept.
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
        return sight_of(id, attempt, pods, self._silent_nodes())

    def _silent_nodes(self) -> list[str]:
        return [node.name for node in self._nodes.values() if node.silent]

    async def forget_ended(self, held: Collection[tuple[str, int]]) -> None:
        """Delete the objects of pods that ended long enough ago."""
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
        """Yield servers that changed, and all nodes if one has changed. One watcher at a time."""
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
        """Queue all changes from ``version`` on until the watch ends, then queue the error that ended it."""
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
            # Pass on every error. Otherwise the watcher would wait for ever.
            changes.put_nowait(error)

    async def _follow_hints(self, changes: asyncio.Queue[_Watched | Exception]) -> None:
        while True:
            await self._hinted.wait()
            self._hinted.clear()
            while self._hints:
                changes.put_nowait(("HINT", {"kind": "Hint", "server": self._hints.pop()}))

    def _changed(self, kind: str, item: dict[str, Any]) -> list[ServerSight | list[Node]]:
        """Return what is new after one event of a watch."""
        if item["kind"] == "Hint":
            server = item["server"]
            return [self._seen_nodes() if server is None else self._sight(*server)]
        if item["kind"] == "Node":
            name, after = item["metadata"]["name"], None if kind == "DELETED" else node_facts(item)
            before = self._replace(self._nodes, name, after)
            # Kubelets report every few seconds without a change.
            if before == after:
                return []
            self._ask_for_blocks()
            heard = before is None or after is None or before.silent != after.silent
            there = (
                {pod.server for pod in self._ours() if pod.node == name and pod.server} if heard else set()
            )
            return [self._seen_nodes(), *(self._sight(*key) for key in sorted(there))]
        before_all = (foreign_gpus(self._pods.values()), self._proven())
        after_pod = None if kind == "DELETED" else pod_facts(item, self._namespace)
        before_pod = self._replace(self._pods, item["metadata"]["uid"], after_pod)
        seen: list[ServerSight | list[Node]] = []
        if before_all != (foreign_gpus(self._pods.values()), self._proven()):
            seen.append(self._seen_nodes())
        key = next((pod.server for pod in (after_pod, before_pod) if pod is not None and pod.server), None)
        if key is not None and before_pod != after_pod:
            seen.append(self._sight(*key))
        return seen

    def _replace(self, known: dict[str, _Facts], key: str, after: _Facts | None) -> _Facts | None:
        """Keep new facts of a node or pod; return the facts before."""
        for newer in self._listing:
            newer.add(key)
        before = known.get(key)
        if after is None:
            known.pop(key, None)
        else:
            known[key] = after
        return before

    def hint(self, id: str, attempt: int) -> None:
        self._hints.add((id, attempt))
        self._hinted.set()

    # Ends, logs and calls

    async def remove(self, id: str, attempt: int) -> None:
        """Delete all pods of an attempt with their grace period; ``look`` tells when they are gone."""
        items, _ = await self._items(
            self._api.list_namespaced_pod, namespace=self._namespace, label_selector=selector(id, attempt)
        )
        for item in items:
            pod = pod_facts(item, self._namespace)
            if pod is not None and not pod.leaving:
                await self._delete(pod)

    async def _delete(self, pod: PodFacts) -> None:
        """Delete with the pod's own grace period; 0 would delete the object before the processes end."""
        with suppress(_NotFound):
            await self._call(
                self._api.delete_namespaced_pod,
                name=pod.name,
                namespace=self._namespace,
                body=V1DeleteOptions(preconditions=V1Preconditions(uid=pod.uid)),
            )

    async def logs(self, id: str, attempt: int, lines: int) -> dict[str, str]:
        ranks = sorted({pod.rank for pod in self._pods.values() if pod.server == (id, attempt)})
        found: dict[str, str] = {}
        for rank in ranks:
            # A log can be as large as its node allows, and reading it takes several times as much memory.
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
        """Return the EFA interfaces and huge pages of a node, by resource name."""
        facts = self._nodes.get(node)
        return dict(facts.devices) if facts is not None else {}

    async def _items(self, method: Any, **arguments: Any) -> tuple[list[dict[str, Any]], str]:
        """Read a whole list page by page, never from a stale cache; return its items and version."""
        items: list[dict[str, Any]] = []
        page = ""
        while True:
            answer = await self._call(method, limit=PAGE, _continue=page, **arguments)
            items += answer["items"]
            page = answer["metadata"].get("continue", "")
            if not page:
                return items, answer["metadata"]["resourceVersion"]

    async def _call(self, method: Any, **arguments: Any) -> Any:
        """Make one call. Raises ``_NotFound``, ``_NotYet`` or, for other errors, ``ClusterUnavailable``."""
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
    """The object does not exist."""


class _NotYet(Exception):
    """The object cannot answer the call in its current state."""


def _refusal(what: str, status: int | None, said: str) -> Exception:
    if status == 404:
        return _NotFound(what)
    if status == 400:
        return _NotYet(said)
    return ClusterUnavailable(f"the Kubernetes API answered {status} to {what}: {said}")


def split_log(text: str, lines: int) -> dict[str, str]:
    """Return the last lines of each part of a server, from the ``part| line`` output of its container."""
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        part, bar, rest = line.partition("| ")
        said.setdefault(part if bar and part.isalpha() else "launcher", []).append(rest if bar else line)
    return {part: "\n".join(rows[-lines:]) for part, rows in said.items()}
