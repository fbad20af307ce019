"""Decisions on limits: operators set and clear them, and queued requests get raised limits.

A lowered limit holds for later requests only. It ends nothing and moves no planned start.
"""

from __future__ import annotations

from dataclasses import replace

from gpudev_hub.core.access_model import LimitRule
from gpudev_hub.core.causes import Cause, Reason
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.events import ClearLimits, SetLimits
from gpudev_hub.core.limits.rules import DEFAULT, NAMES
from gpudev_hub.core.model import State
from gpudev_hub.core.words import listing

from .transitions import Turn
from .working_state import WorkingState, demand_key


def set_limits(turn: Turn, event: SetLimits) -> None:
    """Set some limits of a scope; limits that are not given stay as they are."""
    world = turn.world
    check_scope(world, event.scope, event.pool)
    if not event.values:
        raise Refused(
            Code.INVALID_REQUEST, "No limit was given.", "Give at least one, for example --running-gpus 8."
        )
    known = world.limits.get((event.scope, event.pool))
    rule = known or LimitRule(event.scope, event.pool, event.actor, turn.now)
    changed = replace(rule, **dict(event.values))  # type: ignore[arg-type]
    if changed == known:
        return
    world.put(
        replace(changed, set_by=event.actor, set_at=turn.now, reason=event.reason),
        Reason(Cause.LIMITS_SET, event.reason),
        event.actor,
    )
    look_for_raised(world)


def clear_limits(turn: Turn, event: ClearLimits) -> None:
    """Remove all limits of a scope, or the named ones; the next wider rule holds again."""
    world = turn.world
    known = world.limits.get((event.scope, event.pool))
    if known is None:
        check_scope(world, event.scope, event.pool)
        return
    left = replace(known, **dict.fromkeys(event.names or NAMES))  # type: ignore[arg-type]
    cause = Reason(Cause.LIMITS_CLEARED, event.reason)
    if all(getattr(left, name) is None for name in NAMES):
        world.drop(known, cause, event.actor)
    elif left != known:
        changed = replace(left, set_by=event.actor, set_at=turn.now, reason=event.reason)
        world.put(changed, cause, event.actor)
    look_for_raised(world)


def look_for_raised(world: WorkingState) -> None:
    """Find the queued requests that are planned with a lower limit on running GPUs than their owner has."""
    world.raised.update(r.id for r in world.queued() if world.running_limit(r) > r.cap)


def raise_caps(turn: Turn, most: int | None) -> None:
    """Plan queued requests, at most ``most`` in queue order, with the raised limits of their owners."""
    world = turn.world
    found = [world.reservations[ref] for ref in world.raised & world.reservations.keys()]
    waiting = sorted(found, key=lambda r: r.seq)
    for reservation in waiting[:most]:
        cap = world.running_limit(reservation)
        if reservation.state is State.QUEUED and cap > reservation.cap:
            world.put(replace(reservation, cap=cap), Reason(Cause.PLANNED, "the limit was raised"))
            key = demand_key(reservation.id, reservation.attempt + 1)
            if world.plan_of(reservation).raise_cap(key, cap):
                world.freed.add(reservation.request.pool)
    world.raised = set() if most is None else {r.id for r in waiting[most:]}


def check_scope(world: WorkingState, scope: str, pool: str | None) -> None:
    """Raise ``Refused`` if the scope or the pool does not exist."""
    if pool is not None and pool not in world.plans:
        raise Refused(
            Code.UNKNOWN_GPU_TYPE,
            f"There is no GPU type {pool[:64]!r}.",
            f"Available: {listing(list(world.plans), 'and')}. Leave the GPU type out for all GPU types.",
        )
    kind, _, name = scope.partition(":")
    if scope == DEFAULT or (kind == "person" and _is_person(world, name)):
        return
    if kind == "team":
        teams = sorted({*world.policy.teams, *(team for p in world.people.values() for team in p.teams)})
        if name in teams:
            return
        raise Refused(
            Code.NOT_FOUND,
            f"There is no team {name[:64]!r} in the settings.",
            f"Known teams: {listing(teams, 'and')}." if teams else "No teams are configured.",
        )
    if kind == "person":
        raise Refused(
            Code.NOT_FOUND,
            f"No user has the subject {name[:64]!r}.",
            "Use the login of a user who has logged in, or a subject such as local:alice.",
        )
    raise Refused(
        Code.INVALID_REQUEST,
        f"Limits cannot be set for {scope[:64]!r}.",
        "Use default, team:ORG/TEAM or person:LOGIN.",
    )


def _is_person(world: WorkingState, subject: str) -> bool:
    """Return whether limits can be set for a subject; people from GitHub must have logged in once."""
    kind, _, name = subject.partition(":")
    return subject in world.people or (kind in ("local", "hub") and bool(name))
