"""Ends of nodes: the end of their capacity block, or an end that an operator set on them.

The plan lets nothing run past the end of a node (``Node.until``). If that end moves before the end of a
server there, the server ends earlier, too, and its owner is warned in time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from gpudev_hub.core.causes import Cause, Reason
from gpudev_hub.core.effects import Tell
from gpudev_hub.core.model import MINUTE, CapacityBlock, Millis, Node, NodeStatus, Reservation, State
from gpudev_hub.core.sentences import Text, because
from gpudev_hub.core.words import moment, node_end

from .transitions import Turn
from .working_state import WorkingState

CLEARED_BEFORE: Final[Millis] = 40 * MINUTE
"""EKS scales the node group of a capacity block to 0 this long before the block ends."""


def last_known_end(world: WorkingState, block: CapacityBlock | None) -> Millis | None:
    """Return the last known end of a capacity block, the earliest if its nodes' records differ."""
    if block is None:
        return None
    ends = (
        node.block.ends_at
        for node in world.nodes.values()
        if node.block is not None and node.block.reservation == block.reservation
    )
    return min((end for end in ends if end is not None), default=None)


def with_block(seen: Node, known: Millis | None) -> Node:
    """Return an observed node with what its capacity block means for it.

    ``known``: the last known end of that block, which holds while EC2 does not answer. If no end is known,
    nothing new starts on the node: it might end at any time.
    """
    block = seen.block
    if block is None:
        return seen
    ends_at = known if block.ends_at is None else block.ends_at
    if ends_at is None:
        why = block.trouble or "EC2 has not answered yet"
        unknown = f"the end of capacity block {block.reservation} is unknown: {why}"
        status = NodeStatus.DRAINED if seen.status is NodeStatus.UP else seen.status
        return replace(seen, status=status, reason="; ".join(filter(None, (seen.reason, unknown))))
    cleared = ends_at - CLEARED_BEFORE
    until = cleared if seen.until is None else min(seen.until, cleared)
    return replace(seen, until=until, block=replace(block, ends_at=ends_at))


def end_with_node(turn: Turn, name: str) -> None:
    """Let no reservation end later than its node.

    The owner gets at least the longest warning, even if the node should have ended already. The recorded end
    may be a mistake, and the node still runs.
    """
    world = turn.world
    until = world.nodes[name].until
    if until is None:
        return
    notice = (max(world.policy.warn_minutes, default=0) + 1) * MINUTE
    for claim, reservation in world.current_on(name):
        if reservation.hard_end is None:
            continue
        end = max(until, turn.now + notice + reservation.teardown)
        if reservation.state not in (State.STARTING, State.READY) or end >= reservation.hard_end:
            continue
        cause = Reason(Cause.NODE_CHANGED, node_end(name, until))
        shorter = replace(reservation, hard_end=end)
        world.put(shorter, cause)
        world.change_claim(replace(claim, hard_end=end), cause)
        now_at, before = (moment(r.ends_at or 0, turn.now) for r in (shorter, reservation))
        ends = f"your server ends at {now_at}, not at {before}. Save your work before then"
        turn.do(Tell(reservation.id, because(node_end(name, until), ends)))


def why_early(world: WorkingState, reservation: Reservation) -> Text:
    """Return the text that says which node's end shortened the hold of a reservation; empty: none did."""
    if reservation.ready_at is None or reservation.hard_end is None:
        return ""
    nodes = (world.nodes.get(part.node) for part in reservation.allocation)
    ends = [(node.name, node.until) for node in nodes if node is not None and node.until is not None]
    whole = reservation.ready_at + reservation.request.hold + reservation.teardown
    if not ends or reservation.hard_end >= whole:
        return ""
    name, until = min(ends, key=lambda end: end[1])
    return node_end(name, until) if until <= reservation.hard_end else ""
