"""Nodes as Kubernetes shows them, read as nodes of pools. Pure: objects of the API in, records out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gpudev_hub.core.model import SECOND, Millis, Node, NodeStatus

from .labels import EFA, GPU, HUGE_PAGES, PLACEMENT_GROUP, POOL, UNTIL, ZONE

TOLERATED = frozenset({GPU})
"""Keys of taints that our pods tolerate on nodes that are well."""
_OF_READINESS = frozenset(
    {
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
        "node.kubernetes.io/unschedulable",
    }
)
"""Taints that repeat what the node's condition, or its ``unschedulable``, says itself."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What matters of a node object."""

    name: str
    pool: str
    """Empty: none of ours, or no longer."""
    group: str
    gpus: int
    """Allocatable."""
    devices: tuple[tuple[str, str], ...]
    """Other resources for whole nodes, as allocatable shows them: EFA interfaces, huge pages."""
    ready: str
    """Condition ``Ready``: ``True``, ``False``, or ``Unknown`` while its kubelet is silent."""
    offered: bool
    """Neither cordoned nor tainted against our pods."""
    until: Millis | None

    @property
    def silent(self) -> bool:
        """Nothing is known of what runs there."""
        return self.ready == "Unknown"


def node_facts(node: Mapping[str, Any]) -> NodeFacts:
    """The facts of a node object."""
    metadata, spec, status = node["metadata"], node.get("spec", {}), node.get("status", {})
    labels = metadata.get("labels", {})
    conditions = {entry["type"]: entry["status"] for entry in status.get("conditions", ())}
    allocatable = status.get("allocatable", {})
    taints = [
        taint
        for taint in spec.get("taints", ())
        if taint["effect"] in ("NoSchedule", "NoExecute")
        and taint["key"] not in TOLERATED
        and taint["key"] not in _OF_READINESS
    ]
    return NodeFacts(
        name=metadata["name"],
        pool=labels.get(POOL, ""),
        group=f"{labels.get(ZONE, '')}/{labels.get(PLACEMENT_GROUP, '')}",
        gpus=int(allocatable.get(GPU, 0)),
        devices=tuple(
            (name, str(allocatable[name]))
            for name in (EFA, HUGE_PAGES)
            if str(allocatable.get(name, "0")) != "0"
        ),
        ready=conditions.get("Ready", "Unknown"),
        offered=not spec.get("unschedulable", False) and not taints,
        until=_instant(metadata.get("annotations", {}).get(UNTIL)),
    )


def nodes_of(facts: Iterable[NodeFacts], foreign: Mapping[str, int]) -> list[Node]:
    """All nodes, those of no pool too; ``foreign``: GPUs by node that pods other than ours hold."""
    return [
        Node(
            name=node.name,
            pool=node.pool,
            gpus=max(0, node.gpus - foreign.get(node.name, 0)),
            group=node.group,
            status=_status(node),
            until=node.until,
        )
        for node in facts
    ]


def _status(node: NodeFacts) -> NodeStatus:
    if node.silent:
        return NodeStatus.UNKNOWN
    if node.ready != "True":
        return NodeStatus.DOWN
    return NodeStatus.UP if node.offered else NodeStatus.DRAINED


def _instant(text: str | None) -> Millis | None:
    """An annotation that nobody can read says nothing."""
    if text is None:
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * SECOND)
    except ValueError:
        return None
