"""Places of queued requests: for new requests, and again for requests that lost theirs, in queue order.

A new request gets its place with everything held. Planned places of younger requests give way to requests
that lost theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gpudev_hub.core.causes import Cause, Reason, Why
from gpudev_hub.core.effects import Tell
from gpudev_hub.core.lifecycle import move
from gpudev_hub.core.model import Millis, Place, Reservation, State
from gpudev_hub.core.planning.plan import Plan, Wanted
from gpudev_hub.core.sentences import Text, say
from gpudev_hub.core.words import listing

from .blocked import why_blocked
from .transitions import Turn, release_claim
from .working_state import WorkingState, demand_of, id_of, is_missed, is_owner_unknown

SLICE = 64
"""Requests placed again in one decision, when many have lost their places."""


def find_place(world: WorkingState, reservation: Reservation, now: Millis) -> Reservation:
    """Return a new request with its earliest place, everything held, and its promise; or blocked."""
    plan = world.plan_of(reservation)
    tried = _anywhere(reservation, plan, now)
    return _placed(world, tried, plan.earliest(demand_of(tried), now), now)


def place_again(turn: Turn, most: int | None) -> None:
    """Place displaced requests, and blocked requests of pools that gained something, in queue order."""
    world = turn.world
    if not world.displaced and not world.retry:
        return
    waiting = [world.reservations[ref] for ref in world.displaced]
    if world.retry:
        waiting += [
            r for r in world.reservations.values() if r.id not in world.displaced and _to_retry(turn, r)
        ]
    waiting.sort(key=lambda r: r.seq)
    causes = {r.id: world.displaced.get(r.id) or world.retry[r.request.pool][0] for r in waiting}
    for pool in sorted({r.request.pool for r in waiting[:most]}):
        give_places(turn, [r for r in waiting[:most] if r.request.pool == pool], lambda r: causes[r.id])
    if most is None or len(waiting) <= most:
        world.retry.clear()
        return
    for pool, (cause, _) in world.retry.items():
        world.retry[pool] = (cause, waiting[most - 1].seq)


def _to_retry(turn: Turn, reservation: Reservation) -> bool:
    """Return whether a blocked request must be tried again."""
    blocked = reservation.state is State.QUEUED and reservation.blocked is not None
    retry = turn.world.retry.get(reservation.request.pool)
    able = blocked and not is_owner_unknown(reservation.blocked)
    return able and retry is not None and reservation.seq > retry[1]


def give_places(
    turn: Turn, waiting: Sequence[Reservation], cause_of: Callable[[Reservation], Why], *, tell: bool = True
) -> None:
    """Place queued reservations of one pool, which are not in the plan, and record it: the oldest first.

    ``tell``: tell their owners if they are worse off. Owners of places that gave way are always told.
    """
    world = turn.world
    placed, moves = _arrange(world, waiting, turn.now)
    for before, after in zip(waiting, placed, strict=True):
        cause = cause_of(before)
        told = _told(before, after, cause) if tell else None
        if told is not None:
            after = replace(after, detail=told)
            turn.do(Tell(after.id, told))
        world.put(after, cause)
        if after.place is not None:
            # The alarm may have rung, and an unchanged record does not set it again.
            world.starts.set(("reservation", after.id, 0), after.place.start)
            if after.place.start < turn.now:
                away = Reason(Cause.NODE_CHANGED, f"{listing(after.place.nodes, 'and')} came back")
                world.held_up[after.id] = (after.place.start, away)
    why = _why(cause_of(waiting[0]))
    _make_way(turn, moves, why)


def _arrange(
    world: WorkingState, waiting: Sequence[Reservation], now: Millis
) -> tuple[list[Reservation], dict[str, Place]]:
    """Find places for queued reservations of one pool, which are not in the plan, in queue order.

    Returns them with place and promise, or blocked, and the new places of younger requests that gave way, by
    plan key. The caller records both. If only nodes on which a reservation failed before are left, they are
    tried again.
    """
    plan = world.plan_of(waiting[0])
    for reservation in waiting:
        world.displaced.pop(reservation.id, None)
    tried = [_anywhere(reservation, plan, now) for reservation in waiting]
    wanted = [Wanted(demand_of(r), _still_good(r, now)) for r in tried]
    moves = plan.arrange(wanted, now, world.promise_of)
    placed = [_placed(world, r, moves.pop(demand_of(r).key), now) for r in tried]
    # Lost places and requests that gave way leave room for others, and places given back may not be the
    # earliest. If all stay blocked, no room was freed.
    if moves or any(r.blocked is None for r in (*waiting, *placed)):
        world.freed.add(waiting[0].request.pool)
    return placed, {key: place for key, place in moves.items() if place is not None}


def _make_way(turn: Turn, moves: dict[str, Place], why: Text) -> None:
    """Record the new places of younger requests that gave way."""
    world, replanned = turn.world, say("replanned", why=why)

    def told(reservation: Reservation, place: Place) -> Text:
        if reservation.place is None or place.start <= reservation.place.start:
            return reservation.detail
        guaranteed = reservation.promise or place.start
        return say("moved", start=place.start, why=replanned, guaranteed=guaranteed)

    before = {ref: world.reservations[ref].detail for ref in map(id_of, moves)}
    for moved in world.move_places(moves, Reason(Cause.YIELDED, replanned), told):
        if moved.detail != before[moved.id]:
            turn.do(Tell(moved.id, moved.detail))


def _told(before: Reservation, after: Reservation, cause: Why) -> Text | None:
    """Return what to tell the owner of a request that was placed again; ``None`` if nothing got worse."""
    if after.place is None:
        return say("blocked", why=after.blocked or "") if before.place is not None else None
    if before.promise is not None and after.place.start > before.promise:
        return say("moved_past_guarantee", start=after.place.start, why=_why(cause))
    return None


def _why(cause: Why) -> Text:
    return cause.detail or cause.cause.value


def requeue(turn: Turn, reservation: Reservation, cause: Why, detail: Text, **fields: Any) -> None:
    """Put a request back into the queue with its old number, place it again, and release its slots.

    It may be blocked. The promise stays if the new place keeps it.
    """
    world = turn.world
    claim = world.claim_of(reservation)
    queued = move(
        reservation,
        State.QUEUED,
        cap=max(reservation.cap, world.running_limit(reservation)),
        admitted_at=None,
        start_deadline=None,
        ready_at=None,
        hard_end=None,
        allocation=(),
        server=None,
        notice="",
        stopped_at=None,
        detail=detail,
        trouble="",
        **fields,
    )
    release_claim(turn, reservation, claim, cause)
    if queued.blocked:
        world.put(queued, cause)
    else:
        give_places(turn, [queued], lambda _: cause, tell=False)


def _still_good(reservation: Reservation, now: Millis) -> Place | None:
    """Return the present or lost place if it is still usable; a blocked request may start in it late."""
    place = reservation.place or reservation.lost
    if place is None or is_missed(reservation, now):
        return None
    waited = reservation.place is None and reservation.blocked is not None
    return place if place.start >= now or waited else None


def _anywhere(reservation: Reservation, plan: Plan, now: Millis) -> Reservation:
    if not reservation.excluded or plan.earliest(demand_of(reservation), now) is not None:
        return reservation
    anywhere = replace(reservation, excluded=frozenset())
    return reservation if plan.earliest(demand_of(anywhere), now) is None else anywhere


def _placed(world: WorkingState, reservation: Reservation, place: Place | None, now: Millis) -> Reservation:
    if place is None:
        why = why_blocked(world.nodes.values(), reservation.request, reservation.length, now)
        return without_place(reservation, why)
    known = (reservation.promise, reservation.lost_promise, place.start)
    promise = max(at for at in known if at is not None)
    return replace(reservation, place=place, promise=promise, blocked=None, lost=None, lost_promise=None)


def without_place(reservation: Reservation, why: Text) -> Reservation:
    """Return the queued reservation as blocked; it remembers place and promise, to get them back."""
    return replace(
        reservation,
        place=None,
        promise=None,
        blocked=why,
        lost=reservation.place or reservation.lost,
        lost_promise=reservation.promise or reservation.lost_promise,
    )
