"""Turns Kubernetes nodes into nodes of pools. Pure: API objects in, records out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from gpudev_hub.core.model import SECOND, CapacityBlock, Millis, Node, NodeStatus
from gpudev_hub.core.words import UNPROVEN, printable

from .capacity import BlockSight
from .labels import CAPACITY_RESERVATION, EFA, GPU, HUGE_PAGES, PLACEMENT_GROUP, POOL, UNTIL, ZONE

TOLERATED = frozenset({GPU})
"""Keys of taints that servers tolerate: healthy nodes have them."""
_OF_READINESS = frozenset(
    {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "node.kubernetes.io/unschedulable"}
)
"""Taints that repeat the ``Ready`` condition or ``unschedulable`` of the node."""
HEALTH: Final = (
    "AcceleratedHardwareReady",
    "KernelReady",
    "NetworkingReady",
    "StorageReady",
    "ContainerRuntimeReady",
)
"""Conditions that the EKS node monitoring agent sets. A node without the agent has none of them."""
PROGRAM_ERRORS: Final = frozenset({13, 31, 43, 45})
"""XID error numbers of NVIDIA's driver that bugs in users' programs cause: the GPU itself works."""
_XID_REASON: Final = re.compile(r"NvidiaXID([0-9]+)(?:Error)?")
_XID: Final = re.compile(r"XID-?([0-9]+)")
_LONGEST_REASON: Final = 100


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """The relevant facts of a node object."""

    name: str
    pool: str
    """Empty if the node is not, or no longer, in a pool."""
    group: str
    gpus: int
    """Allocatable."""
    devices: tuple[tuple[str, str], ...]
    """Resources other than GPUs for whole nodes, from ``allocatable``: EFA interfaces, huge pages."""
    ready: str
    """Condition ``Ready``: ``True``, ``False``, or ``Unknown`` while its kubelet does not report."""
    until: Millis | None
    """The value of the annotation that says when the node ends."""
    refusals: tuple[str, ...] = ()
    """What keeps servers off the node: a cordon, taints."""
    unhealthy: tuple[tuple[str, str], ...] = ()
    """The conditions in ``HEALTH`` that are ``False``, each with its reason."""
    block: str = ""
    """Id of its capacity block; empty without one."""

    @property
    def silent(self) -> bool:
        """Whether the kubelet does not report, so that the state of its pods is unknown."""
        return self.ready == "Unknown"


def node_facts(node: Mapping[str, Any]) -> NodeFacts:
    """Return the facts of a node object."""
    metadata, spec, status = node["metadata"], node.get("spec", {}), node.get("status", {})
    labels = metadata.get("labels", {})
    conditions = {entry["type"]: entry for entry in status.get("conditions", ())}
    allocatable = status.get("allocatable", {})
    refusals = ["cordoned"] if spec.get("unschedulable", False) else []
    refusals += [
        f"tainted {taint['key']}:{taint['effect']}"
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
        ready=conditions.get("Ready", {}).get("status", "Unknown"),
        until=_instant(metadata.get("annotations", {}).get(UNTIL)),
        refusals=tuple(refusals),
        unhealthy=tuple(
            (name, printable(conditions[name].get("reason") or "no reason given")[:_LONGEST_REASON])
            for name in HEALTH
            if name in conditions and _is_fault(conditions[name])
        ),
        block=labels.get(CAPACITY_RESERVATION, ""),
    )


def nodes_of(
    facts: Iterable[NodeFacts],
    foreign: Mapping[str, int],
    proven: Collection[str] | None = None,
    blocks: Mapping[str, BlockSight] | None = None,
) -> list[Node]:
    """Return all nodes, including those without a pool.

    ``foreign`` has, by node, the GPUs that pods other than servers hold. ``proven`` has the nodes that are
    shown to enforce network policies: new servers start only there. ``None`` means that this is not checked.
    ``blocks`` has EC2's answers about capacity blocks.
    """
    return [
        _node(
            node,
            foreign.get(node.name, 0),
            (blocks or {}).get(node.block, BlockSight()),
            proven=proven is None or node.name in proven,
        )
        for node in facts
    ]


def _node(node: NodeFacts, foreign: int, block: BlockSight, *, proven: bool) -> Node:
    reasons = [*node.refusals, *(f"{condition} is False: {reason}" for condition, reason in node.unhealthy)]
    reasons += [*([block.over] if block.over else []), *([] if proven else [UNPROVEN])]
    return Node(
        name=node.name,
        pool=node.pool,
        gpus=max(0, node.gpus - foreign),
        group=node.group,
        status=_status(node, offered=not reasons),
        until=node.until,
        reason="; ".join(reasons),
        unproven=not proven,
        unhealthy=tuple(condition for condition, _ in node.unhealthy),
        block=CapacityBlock(node.block, block.ends_at, block.trouble) if node.block else None,
    )


def _status(node: NodeFacts, *, offered: bool) -> NodeStatus:
    if node.silent:
        return NodeStatus.UNKNOWN
    if node.ready != "True":
        return NodeStatus.DOWN
    return NodeStatus.UP if offered else NodeStatus.DRAINED


def _is_fault(condition: Mapping[str, Any]) -> bool:
    """Return whether a condition reports a fault of the node, not only of a user's program.

    With each finding, the agent replaces the reason of the condition and appends to its message.
    """
    if condition["status"] != "False":
        return False
    found = _XID_REASON.fullmatch(condition.get("reason") or "")
    if found is None or int(found[1]) not in PROGRAM_ERRORS:
        return True
    findings = filter(None, (condition.get("message") or "").split("; "))
    return not all(
        (numbers := _XID.findall(finding)) and PROGRAM_ERRORS.issuperset(map(int, numbers))
        for finding in findings
    )


def _instant(text: str | None) -> Millis | None:
    """Return the instant in an annotation; ``None`` if it is missing or cannot be parsed."""
    if text is None:
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * SECOND)
    except ValueError:
        return None
