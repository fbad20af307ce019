"""Enforces NetworkPolicies with nftables, as a network plug-in would, while pods come and go."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from cluster_stack import ADDRESS
from cluster_users import NAMESPACE
from harness.cluster import Cluster
from harness.layout import DNS_ADDRESS
from harness_policies import DIRECTIONS, TABLE, Direction, Endpoint, ruleset
from hub_users import wait_for
from manifests import labels_of_the_chart

LOOK_AGAIN: Final = 0.2
"""Seconds between two checks of pods and policies."""
DNS: Final = [Endpoint("kube-system", {"k8s-app": "kube-dns"}, DNS_ADDRESS)]
"""CoreDNS, which is not a pod here."""
SERVICE: Final = {"app.kubernetes.io/name": "gpudev", "app.kubernetes.io/component": "service"}
BESIDE: Final = [
    Endpoint("gpudev", labels_of_the_chart("hub"), ADDRESS),
    Endpoint("gpudev", labels_of_the_chart("proxy"), ADDRESS),
    Endpoint("gpudev", SERVICE, ADDRESS),
    *DNS,
]
"""Processes beside the cluster that count as pods."""


@dataclass(frozen=True)
class _Gaps:
    """Exceptions: where policies are not enforced."""

    off: frozenset[str] = frozenset()
    directions: tuple[Direction, ...] = tuple(DIRECTIONS)
    controlled_only: bool = False


class Enforcement:
    """Enforces policies. Use it as a context manager; afterwards nothing is enforced."""

    def __init__(
        self, cluster: Cluster, namespace: str | None = NAMESPACE, beside: Sequence[Endpoint] = BESIDE
    ) -> None:
        """``namespace``: enforce its policies; by default those of the servers, because the other parts share
        one address beside the cluster. ``None``: all namespaces. ``beside``: endpoints that are not pods."""
        self._cluster = cluster
        self._api = cluster.client(cluster.admin)
        self._of = f"namespaces/{namespace}/" if namespace else ""
        self._beside = beside
        self._wanted = _Gaps()
        self._loaded: tuple[str, _Gaps] | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="enforcement")

    def __enter__(self) -> Self:
        self._thread.start()
        self.change()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        subprocess.run(["nft", "delete", "table", "inet", TABLE], check=True)

    def change(
        self, *, off: Collection[str] = (), only: Direction | None = None, controlled_only: bool = False
    ) -> None:
        """Stop enforcement on the nodes ``off``, in both directions or ``only`` one; wait for the effect.

        ``controlled_only``: also for pods without a controller, like a plug-in that finds pods that way.
        """
        wanted = _Gaps(frozenset(off), tuple(DIRECTIONS) if only is None else (only,), controlled_only)
        self._wanted = wanted
        wait_for("the rules", lambda: self._loaded is not None and self._loaded[1] == wanted)

    def _run(self) -> None:
        while not self._end.wait(LOOK_AGAIN):
            gaps = self._wanted
            text = self._rules(gaps)
            if text is not None and (text, gaps) != self._loaded:
                subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
                self._loaded = (text, gaps)

    def _rules(self, gaps: _Gaps) -> str | None:
        """Return the rules; ``None`` if the API does not answer."""
        pods = self._items(f"/api/v1/{self._of}pods")
        policies = self._items(f"/apis/networking.k8s.io/v1/{self._of}networkpolicies")
        if pods is None or policies is None:
            return None
        there = [
            pod
            for pod in pods
            # Another pod may have the address of a pod that has ended.
            if pod["status"].get("podIP") and pod["status"]["phase"] not in ("Succeeded", "Failed")
        ]
        endpoints = [*self._beside, *map(_endpoint, there)]
        spared = {
            (pod["status"]["podIP"], direction)
            for pod in there
            if pod["spec"]["nodeName"] in gaps.off or (gaps.controlled_only and not _controlled(pod))
            for direction in gaps.directions
        }
        return ruleset([policy | {"kind": "NetworkPolicy"} for policy in policies], endpoints, spared)

    def _items(self, path: str) -> list[dict[str, Any]] | None:
        answer = self._api.get(path)
        found: list[dict[str, Any]] | None = answer.json()["items"] if answer.is_success else None
        return found


def _endpoint(pod: dict[str, Any]) -> Endpoint:
    ports = {
        port["name"]: port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
        if "name" in port
    }
    meta = pod["metadata"]
    return Endpoint(meta["namespace"], meta.get("labels", {}), pod["status"]["podIP"], ports)


def _controlled(pod: dict[str, Any]) -> bool:
    return any(owner.get("controller") for owner in pod["metadata"].get("ownerReferences", ()))
