"""Why a request has no place at all."""

from __future__ import annotations

from collections.abc import Iterable

from gpudev_hub.core.model import Millis, Node, NodeStatus, Request
from gpudev_hub.core.sentences import Text, joined, say
from gpudev_hub.core.words import duration, gpus, node_end, node_state


def why_blocked(nodes: Iterable[Node], request: Request, length: Millis, now: Millis) -> Text:
    """Return the text that says why a request has no place of this length.

    It names only nodes that could serve the request: with enough others in their zone and placement group.
    """
    pool, shape = request.pool, request.shape
    groups = usable_together(nodes, request)
    able = [n for group in groups for n in group if len(group) >= shape.nodes]
    if not able:
        if shape.nodes == 1:
            return f"{pool} has no node with {gpus(shape.gpus)}"
        most = max(map(len, groups), default=0)
        each = f"nodes with {gpus(shape.gpus)}"
        return f"{shape.nodes} {each} that can be used together are needed; {pool} has {most}"
    up = {n.name for n in able if n.status is NodeStatus.UP}
    ending = [n for n in able if n.until is not None and (n.name in up or n.until < now + length)]
    away: list[Text] = [node_state(n.name, n) for n in able if n.name not in up and n not in ending]
    if ending:
        ends = [node_end(n.name, n.until or 0) for n in ending]
        away.append(say("nodes_end", nodes=joined(ends, "all"), length=duration(length)))
    if not away:
        return f"{pool} has no room for this request"
    return joined(away, "parts" if ending else "all")


def usable_together(nodes: Iterable[Node], request: Request) -> list[list[Node]]:
    """Return the nodes large enough for the request, in lists of nodes that may serve it together."""
    groups: dict[str, list[Node]] = {}
    for node in sorted(nodes, key=lambda n: n.name):
        if node.pool == request.pool and node.gpus >= request.shape.gpus:
            groups.setdefault(node.group if request.shape.nodes > 1 else node.name, []).append(node)
    return list(groups.values())
