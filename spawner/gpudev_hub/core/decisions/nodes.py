"""Decisions on nodes: seen up, down, unknown, drained, gone, lost.

Nothing that is known of a node frees a slot. While trouble with a node may be short (`Policy.node_grace`),
its places stay and nothing starts there. After that, a request that loses its place is placed again,
elsewhere or later; where nothing is left for it, it is blocked until something is gained.
"""

from __future__ import annotations

from dataclasses import replace

from gpudev_hub.core.causes import Cause, Reason, Why
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.events import NodesObserved, NodeUnknown, OperatorNode
from gpudev_hub.core.model import SECOND, Claim, Millis, Node, NodeStatus, Outcome, Reservation, State
from gpudev_hub.core.planning.plan import PlanNode
from gpudev_hub.core.words import UNPROVEN, listing, node_end, node_state

from .node_ends import end_with_node, last_known_end, with_block
from .transitions import Turn, finish, stop
from .unit_of_work import SERVICE

_ACTIONS = ("drain", "undrain", "lost")
#: Graces that end within this time of one another end together: what made several nodes unknown at once is
#: found out node by node.
_TOGETHER: Millis = 5 * SECOND


def observed(turn: Turn, event: NodesObserved) -> None:
    """All nodes as now seen; one that is not among them is gone, and what ran there is lost.

    One that has left its pool is there all the same: it stays in it, drained, until nothing runs there.
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
        world.end_part()
    for name in sorted(world.nodes.keys() - kept):
        node, cause = world.nodes[name], Reason(Cause.NODE_LOST, node_state(name, None))
        if name in there:
            cause = Reason(Cause.NODE_CHANGED, f"{name} left its pool")
        world.drop(node, cause)
        _plan(turn, node, cause)
        _lose(turn, name, cause)
        world.end_part()


def unknown(turn: Turn, event: NodeUnknown) -> None:
    """Nothing could be learnt of the node."""
    node = turn.world.nodes.get(event.name)
    if node is not None and node.status is not NodeStatus.UNKNOWN:
        node = _with_grace(turn, replace(node, status=NodeStatus.UNKNOWN))
        _change(turn, node, node_cause(node))


def grace_is_over(turn: Turn, name: str) -> None:
    """The node is away for longer than its places stay: they are given up."""
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
    """A node as seen, and, while trouble with it may be short, as it was when its places were planned.

    A node that shows no GPUs at all is in trouble, too: its device plugin is being restarted. So is one whose
    policy probe is away, perhaps to be replaced.
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
        old,
        status=status,
        drained=False,
        grace_until=until,
        reason=seen.reason,
        unproven=seen.unproven,
    )


def operator(turn: Turn, event: OperatorNode) -> None:
    """Apply an operator's action to a node; it holds until an operator takes it back."""
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
        # It is up once it is seen up: it may be cordoned, too, or have left its pool.
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
    """Record a node as it is now, and plan with it."""
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
    """Bring the plan in step with what is known of a node."""
    world = turn.world
    plan = world.plans.get(node.pool)
    if plan is None:
        return  # the settings no longer have this pool
    world.displace(
        plan.set_node(plan_node(node)) if world.is_planned(node.name) else plan.remove_node(node.name), cause
    )
    # Why they are blocked may have changed.
    world.retry_blocked(node.pool, cause)
    if world.is_up(node.name):
        world.freed.add(node.pool)
        world.start_waiting()
    for claim in list(world.claims.values()):
        if claim.overruns and _is_on(claim, node.name):
            world.refresh(claim, cause)


def _is_on(claim: Claim, node: str) -> bool:
    return any(part.node == node for part in claim.allocation)


def _lose(turn: Turn, name: str, cause: Why, actor: str = SERVICE) -> None:
    """Whatever ran on the node is lost, gangs as a whole. Slots stay taken until servers are seen gone."""
    world = turn.world
    for claim in sorted(world.claims.values(), key=lambda c: c.key):
        reservation = world.reservations.get(claim.reservation)
        if reservation is None or reservation.attempt != claim.attempt or not _is_on(claim, name):
            continue
        if reservation.state in (State.STARTING, State.READY):
            stop(turn, reservation, Outcome.NODE_LOST, cause, actor, detail=cause.detail)
        _finish_if_stopping(turn, world.reservations.get(reservation.id), cause)


def _finish_if_stopping(turn: Turn, reservation: Reservation | None, cause: Why) -> None:
    """The server may never be seen gone: the reservation ends now, its claim when that is seen."""
    if reservation is not None and reservation.state is State.STOPPING:
        finish(turn, reservation, cause)


def plan_node(node: Node) -> PlanNode:
    """A node as the planner sees it."""
    closed = node.status is not NodeStatus.UP
    return PlanNode(node.name, node.gpus, node.group, node.until, closed)


def node_cause(node: Node, old: Node | None = None) -> Reason:
    """The cause of what a change of a node does; `old`: the node before."""
    word = Cause.NODE_DRAINED if node.status is NodeStatus.DRAINED else Cause.NODE_CHANGED
    moved = old is not None and node.status is old.status and node.until != old.until
    if moved and node.status is NodeStatus.UP and node.until is not None:
        return Reason(word, node_end(node.name, node.until))
    return Reason(word, node_state(node.name, node))
