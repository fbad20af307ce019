"""Decisions on nodes: up, down, unknown, drained, removed, lost.

No state of a node frees a slot. While trouble with a node may be short (``Policy.node_grace``), its places
stay and nothing starts there. After that, a request that loses its place is placed again, elsewhere or later.
If no place is left, it is blocked until its pool gains something.
"""

from __future__ import annotations

from dataclasses import replace

from gpudev_hub.core.causes import Cause, Reason, Why
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.events import NodesObserved, NodeUnknown, OperatorNode
from gpudev_hub.core.model import SECOND, Millis, Node, NodeStatus, Outcome, State
from gpudev_hub.core.planning.plan import PlanNode
from gpudev_hub.core.words import UNPROVEN, listing, node_end, node_state

from .node_ends import end_with_node, last_known_end, with_block
from .transitions import Turn, finish, stop
from .unit_of_work import SERVICE

_ACTIONS = ("drain", "undrain", "lost")
_TOGETHER: Millis = 5 * SECOND
"""Graces that end within this time of each other end together: several nodes that became unknown at once are
noticed one by one."""


def observed(turn: Turn, event: NodesObserved) -> None:
    """Record all nodes as observed. A node that is missing is removed, and what ran there is lost.

    A node that has left its pool stays in it, drained, until nothing runs there.
    """
    world = turn.world
    there = {node.name for node in event.nodes}
    kept = set(there)
    in_use = {part.node: claim.pool for claim in world.claims.values() for part in claim.allocation}
    for node in sorted(event.nodes, key=lambda n: n.name):
        old = world.nodes.get(node.name)
        if in_use.get(node.name, node.pool) != node.pool:
            left = NodeStatus.DRAINED if node.status is NodeStatus.UP else node.status
            node = replace(node, pool=in_use[node.name], status=left)
        elif node.pool not in world.plans:
            kept.discard(node.name)
            continue
        node = with_block(node, last_known_end(world, node.block))
        drained = old is not None and old.drained
        status = NodeStatus.DRAINED if drained and node.status is NodeStatus.UP else node.status
        node = _with_grace(turn, replace(node, status=status, drained=drained))
        _change(turn, node, node_cause(node, old))
        end_with_node(turn, node.name)
    for name in sorted(world.nodes.keys() - kept):
        node, cause = world.nodes[name], Reason(Cause.NODE_LOST, node_state(name, None))
        if name in there:
            cause = Reason(Cause.NODE_CHANGED, f"{name} left its pool")
        world.drop(node, cause)
        _plan(turn, node, cause)
        _lose(turn, name, cause)


def unknown(turn: Turn, event: NodeUnknown) -> None:
    """Record that the state of a node is unknown."""
    node = turn.world.nodes.get(event.name)
    if node is not None and node.status is not NodeStatus.UNKNOWN:
        node = _with_grace(turn, replace(node, status=NodeStatus.UNKNOWN))
        _change(turn, node, node_cause(node))


def grace_is_over(turn: Turn, name: str) -> None:
    """Remove the places of a node whose grace is over, together with graces that end soon."""
    world, now = turn.world, turn.now
    node = world.nodes[name]
    if node.grace_until is None or node.grace_until > now:
        return
    others = [
        n.grace_until for n in world.nodes.values() if n.pool == node.pool and n.grace_until is not None
    ]
    last = max(at for at in others if at <= now + _TOGETHER)
    _change(turn, replace(node, grace_until=last if last > now else None), node_cause(node))


def _with_grace(turn: Turn, seen: Node) -> Node:
    """Return an observed node; while trouble with it may be short, as it was when its places were planned.

    A node that shows no GPUs is in trouble, too: its device plugin is restarting. So is a node whose policy
    probe is missing, perhaps to be replaced.
    """
    old = turn.world.nodes.get(seen.name)
    seen = replace(seen, grace_until=None)
    if old is None or not old.planned or old.pool != seen.pool or seen.drained:
        return seen
    without_gpus = seen.status is NodeStatus.UP and seen.gpus == 0 and old.gpus > 0
    status = NodeStatus.DOWN if without_gpus else seen.status
    until = turn.now + turn.world.policy.node_grace if old.grace_until is None else old.grace_until
    passing = status in (NodeStatus.DOWN, NodeStatus.UNKNOWN) or seen.reason == UNPROVEN
    if not passing or until <= turn.now:
        return seen
    return replace(
        old, status=status, drained=False, grace_until=until, reason=seen.reason, unproven=seen.unproven
    )


def operator(turn: Turn, event: OperatorNode) -> None:
    """Apply an operator's action to a node; it holds until an operator reverts it."""
    node = turn.world.nodes.get(event.name)
    if node is None:
        known = listing(sorted(turn.world.nodes), "and")
        raise Refused(
            Code.NOT_FOUND, f"There is no node {event.name}.", f"Known nodes: {known}." if known else ""
        )
    if event.action not in _ACTIONS:
        raise Refused(
            Code.INVALID_REQUEST,
            f"{event.action!r} is not an action for a node.",
            f"Use {listing(_ACTIONS, 'or')}.",
        )
    if event.action == "undrain":
        # The next observation sets the status: the node may be cordoned, or may have left its pool.
        cause = Reason(Cause.OPERATOR, f"{node.name} is no longer drained")
        _change(turn, replace(node, drained=False), cause, event.actor)
        return
    if event.action == "drain":
        status = NodeStatus.DRAINED if node.status is NodeStatus.UP else node.status
        cause = Reason(Cause.NODE_DRAINED, f"{node.name} was drained")
        _change(turn, replace(node, drained=True, status=status, grace_until=None), cause, event.actor)
        return
    cause = Reason(Cause.NODE_LOST, f"{node.name} was marked as lost")
    lost = replace(node, drained=True, status=NodeStatus.DOWN, grace_until=None)
    _change(turn, lost, cause, event.actor)
    _lose(turn, node.name, cause, event.actor)


def _change(turn: Turn, node: Node, cause: Why, actor: str = SERVICE) -> None:
    """Record a changed node, and plan with it."""
    world = turn.world
    old = world.nodes.get(node.name)
    if old == node:
        return
    world.put(node, cause, actor)
    if old is not None and old.pool != node.pool and old.pool in world.plans:
        world.displace(world.plans[old.pool].remove_node(old.name), cause)
        world.retry_blocked(old.pool, cause)
    _plan(turn, node, cause)


def _plan(turn: Turn, node: Node, cause: Why) -> None:
    """Update the plan with the state of a node."""
    world = turn.world
    plan = world.plans.get(node.pool)
    if plan is None:
        return  # the settings no longer have this pool
    world.displace(
        plan.set_node(plan_node(node)) if world.is_planned(node.name) else plan.remove_node(node.name), cause
    )
    # The reasons why requests are blocked may have changed.
    world.retry_blocked(node.pool, cause)
    if world.is_up(node.name):
        world.freed.add(node.pool)
        world.start_waiting()
    for claim in list(world.claims.values()):
        if claim.overruns and claim.is_on(node.name):
            world.refresh(claim, cause)


def _lose(turn: Turn, name: str, cause: Why, actor: str = SERVICE) -> None:
    """End what ran on a lost node, gangs as a whole. Slots stay taken until servers are observed gone."""
    world = turn.world
    for _, reservation in world.current_on(name):
        if reservation.state in (State.STARTING, State.READY):
            stop(turn, reservation, Outcome.NODE_LOST, cause, actor, detail=cause.detail)
        stopping = world.reservations.get(reservation.id)
        if stopping is not None and stopping.state is State.STOPPING:
            # Its server may never be observed gone. Its claim stays until then.
            finish(turn, stopping, cause)


def plan_node(node: Node) -> PlanNode:
    """Return a node as the planner sees it."""
    closed = node.status is not NodeStatus.UP
    return PlanNode(node.name, node.gpus, node.group, node.until, closed)


def node_cause(node: Node, old: Node | None = None) -> Reason:
    """Return the cause of what follows from a changed node; ``old``: the node before."""
    word = Cause.NODE_DRAINED if node.status is NodeStatus.DRAINED else Cause.NODE_CHANGED
    moved = old is not None and node.status is old.status and node.until != old.until
    if moved and node.status is NodeStatus.UP and node.until is not None:
        return Reason(word, node_end(node.name, node.until))
    return Reason(word, node_state(node.name, node))
