"""The working state after a start or a failed commit, from the store's records."""

from __future__ import annotations

from gpudev_hub.core.causes import Cause, Reason
from gpudev_hub.core.commit import Snapshot
from gpudev_hub.core.model import Millis, Place, Reservation
from gpudev_hub.core.policy import Policy
from gpudev_hub.core.words import node_state

from .access import follows_access
from .nodes import node_cause, plan_node
from .working_state import WorkingState, demand_of, is_owner_unknown, overdue_cause


def rebuild(policy: Policy, snapshot: Snapshot, now: Millis) -> WorkingState:
    """Return the working state for the store's records.

    Stored places are kept. A place that no longer fits is lifted, and the next decision finds another, with a
    logged cause. Raises ``LookupError`` if a live record is in a pool that the settings do not have.
    """
    world = WorkingState(policy)
    claims = [(claim.reservation, claim.pool) for claim in snapshot.claims.values()]
    for owner, pool in claims + [(r.id, r.request.pool) for r in snapshot.reservations.values()]:
        if pool not in world.plans:
            raise LookupError(f"the settings have no pool {pool!r}, but reservation {owner} uses it")
    world.take_over(snapshot)
    for node in world.nodes.values():
        if node.planned and node.pool in world.plans:
            world.plans[node.pool].set_node(plan_node(node))
    for claim in world.claims.values():
        world.occupy(claim)
    for reservation in world.queued():
        plan, place, demand = world.plan_of(reservation), reservation.place, demand_of(reservation)
        if place is not None and plan.fits(demand, place, now):
            plan.put(demand, place)
        elif place is not None:
            world.displaced[reservation.id] = _why_unfit(world, reservation, place, now)
        elif not is_owner_unknown(reservation.blocked):
            world.retry_blocked(
                reservation.request.pool, Reason(Cause.OUTAGE, "checked again after a restart")
            )
        if world.running_limit(reservation) > reservation.cap:
            world.raised.add(reservation.id)
    world.freed.update(world.plans)
    # A service of an earlier version may have stopped in the middle of a revocation.
    for reservation in world.reservations.values():
        person = world.people.get(reservation.owner.subject)
        if person is not None and not follows_access(reservation, person):
            world.to_settle.add(person.subject)
    return world


def _why_unfit(world: WorkingState, reservation: Reservation, place: Place, now: Millis) -> Reason:
    """Return why a stored place does not fit: a crash cut off what was decided before."""
    for name in place.nodes:
        if name not in world.nodes:
            return Reason(Cause.NODE_LOST, node_state(name, None))
        if not world.is_planned(name):
            return node_cause(world.nodes[name])
    overran = [claim for claim in world.overdue_for(reservation, place, now) if claim.overruns]
    if overran:
        return overdue_cause(overran)
    return Reason(Cause.OUTAGE, "the planned place no longer fits after a restart")
