"""Decisions that the clock makes due: ends, overruns, starts, warnings; and on outages and freed time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from typing import Final

from gpudev_hub.core.causes import Cause, Reason
from gpudev_hub.core.effects import StopServer, Tell, Warn
from gpudev_hub.core.errors import IllegalMove
from gpudev_hub.core.events import Compress, Outage
from gpudev_hub.core.model import SECOND, Millis, Outcome, Place, Reservation, State
from gpudev_hub.core.sentences import because
from gpudev_hub.core.words import duration

from .access import access_detail, settle_access
from .limit_rules import raise_caps
from .node_ends import why_early
from .nodes import grace_is_over
from .placing import SLICE, place_again, requeue
from .timers import Key, claim_due, crossed, reservation_due
from .transitions import Turn, admit, give_up_attempt, move_end, stop
from .working_state import WorkingState, demand_key, overdue_cause

LASTING: Final[Millis] = 30 * SECOND
"""While an outage lasts, no start deadline is nearer than this."""
_LOOKS_PER_MS = 10
"""Queued requests that the cascade visits per millisecond of its budget."""


def advance(turn: Turn) -> None:
    """Do everything that is due by now: ends first, then freed room is used, then starts."""
    world, now = turn.world, turn.now
    while True:
        settle_access(turn)
        # Claims come before reservations: requeued requests must be planned around slots that are not free.
        if due := sorted(world.alarms.pop(now)):
            for key in due:
                _ring(turn, key)
            continue
        hand_on(turn)
        starts = [world.reservations[key[1]] for key in world.starts.pop(now)]
        if not starts:
            return
        for ref in [r.id for r in sorted(starts, key=lambda r: r.seq)]:
            reservation = world.reservations[ref]
            # A late start before this one may have moved it.
            if (
                ref not in world.displaced
                and reservation.place is not None
                and reservation.place.start <= now
            ):
                admit(turn, reservation)


def hand_on(turn: Turn) -> None:
    """Place displaced requests again, up to ``SLICE`` of them, and fill the freed holes."""
    world = turn.world
    raise_caps(turn, SLICE)
    place_again(turn, SLICE)
    _start_elsewhere(turn)
    for pool in sorted(world.freed):
        _move_earlier(world, world.plans[pool].fill_holes(turn.now))


def _move_earlier(world: WorkingState, moves: Mapping[str, Place]) -> None:
    """Record places that the plan has moved earlier."""
    for key, place in moves.items():
        world.move_places({key: place}, Reason(Cause.PLANNED, "earlier, because GPU time became free"))


def _start_elsewhere(turn: Turn) -> None:
    """Start due requests whose node is away on free nodes, before others get that room."""
    world, now = turn.world, turn.now
    for reservation in sorted(
        (world.reservations[ref] for ref in world.waiting & world.reservations.keys()), key=lambda r: r.seq
    ):
        place = reservation.place
        away = None if place is None or place.start > now else world.away(place)
        if away is None or reservation.id in world.displaced:
            continue
        key = demand_key(reservation.id, reservation.attempt + 1)
        found = world.plan_of(reservation).start_elsewhere(key, now)
        if found is not None:
            promise = max(now, reservation.promise or now)
            world.put(replace(reservation, place=found, promise=promise), Reason(Cause.NODE_CHANGED, away))
            world.freed.add(reservation.request.pool)


def _ring(turn: Turn, key: Key) -> None:
    world = turn.world
    kind, ref, attempt = key
    if kind == "claim":
        _overrun(turn, ref, attempt)
    elif kind == "minted":
        world.drop(world.minted[ref], Cause.EXPIRED)
    elif kind == "node":
        grace_is_over(turn, ref)
    elif ref in world.reservations:
        _reservation_rings(turn, world.reservations[ref])


def _overrun(turn: Turn, id: str, attempt: int) -> None:
    """Plan around slots that should be free by now; requests planned on them are displaced."""
    world = turn.world
    if (id, attempt) not in world.claims:
        return
    claim = world.claims[id, attempt]
    cause = overdue_cause([claim])
    while claim_due(claim, world.policy) <= turn.now:
        claim = replace(claim, overruns=claim.overruns + 1)
    world.change_claim(claim, cause)
    turn.do(StopServer(id, attempt))


def _reservation_rings(turn: Turn, reservation: Reservation) -> None:
    world, now = turn.world, turn.now
    due = reservation_due(reservation, world.policy)
    if due is None or due > now or reservation.ends_at is None:
        return
    window = world.policy.pool(reservation.request.pool).restart_window
    if reservation.ends_at <= now:
        stop(turn, reservation, Outcome.EXPIRED, Cause.EXPIRED, detail=why_early(world, reservation))
    elif reservation.access_ends_at is not None and reservation.access_ends_at <= now:
        detail = access_detail(world, reservation.owner.subject)
        stop(turn, reservation, Outcome.ACCESS_REVOKED, Cause.ACCESS_REVOKED, detail=detail)
    elif (
        reservation.stopped_at is not None
        and reservation.blocked is None
        and reservation.stopped_at + window <= now
    ):
        detail = f"the server was stopped and not started again within {duration(window)}"
        stop(turn, reservation, Outcome.RELEASED, Cause.RELEASED, detail=detail)
    elif (
        reservation.stopped_at is None
        and reservation.start_deadline is not None
        and reservation.start_deadline <= now
    ):
        _allowance_used_up(turn, reservation)
    else:
        _warn(turn, reservation)


def _allowance_used_up(turn: Turn, reservation: Reservation) -> None:
    """Requeue a start that was not ready in time; end it the last time; restart it after READY."""
    policy = turn.world.policy
    known = reservation.trouble or reservation.detail
    detail = because(f"not ready within {duration(reservation.startup)}", known)
    cause = Reason(Cause.START_FAILED, detail)
    if reservation.ready_at is not None:
        give_up_attempt(turn, replace(reservation, start_deadline=None), cause, detail)
        return
    failed = reservation.failed_starts + 1
    if failed >= policy.start_attempts:
        counted = replace(reservation, failed_starts=failed)
        detail = because(f"{failed} starts failed; the last one", detail)
        stop(turn, counted, Outcome.FAILED, cause, detail=detail)
    elif reservation.access_ends_at is not None:
        # Requests of people without access do not wait in the queue.
        revoked = access_detail(turn.world, reservation.owner.subject)
        stop(turn, reservation, Outcome.ACCESS_REVOKED, cause, detail=revoked)
    else:
        requeue(turn, reservation, cause, detail, failed_starts=failed)
        again = because("the start failed, and the request is in the queue again", detail)
        turn.do(Tell(reservation.id, again))


def _warn(turn: Turn, reservation: Reservation) -> None:
    """Record the thresholds that were crossed, and warn the owner of the latest."""
    policy = turn.world.policy
    new = [m for m in crossed(reservation, policy.warn_minutes, turn.now) if m not in reservation.warned]
    if not new:
        raise IllegalMove(f"nothing is due for {reservation}")
    warned = (*reservation.warned, *sorted(new, reverse=True))
    turn.world.put(replace(reservation, warned=warned), Reason(Cause.WARNED, f"{min(new)} min left"))
    turn.do(Warn(reservation.id, min(new)))


def tick(turn: Turn) -> None:
    """Forget the past in the plans. What is due is done with every event."""
    for plan in turn.world.plans.values():
        plan.trim(turn.now)


def compress(turn: Turn, event: Compress) -> None:
    """Run one slice of the cascade."""
    world = turn.world
    if world.displaced or world.retry or world.raised:
        return
    looks = max(1, event.budget_ms * _LOOKS_PER_MS)
    for pool in sorted(world.freed):
        should_stop = _after(looks)
        moves, through = world.plans[pool].compress(turn.now, should_stop)
        _move_earlier(world, moves)
        if not through:
            return
        world.freed.discard(pool)
        if any(n.until is not None and n.pool == pool for n in world.nodes.values()):
            world.retry_blocked(pool, Reason(Cause.PLANNED, "GPU time became free"))


def _after(looks: int) -> Callable[[], bool]:
    """Return a function that is true from the given number of calls on."""
    calls = count(1)
    return lambda: next(calls) >= looks


def outage(turn: Turn, event: Outage) -> None:
    """Prolong start-up allowances by the outage, and move ends along where that keeps all promises."""
    world, now = turn.world, turn.now
    cause = Reason(Cause.OUTAGE, f"{event.what} was unavailable for {duration(event.until - event.since)}")
    waiting = [
        r for r in world.reservations.values() if r.state is State.STARTING and r.start_deadline is not None
    ]
    for reservation in sorted(waiting, key=lambda r: r.seq):
        assert reservation.start_deadline is not None
        begun = reservation.admitted_at if reservation.ready_at is None else None
        lost = event.until - max(event.since, begun or event.since)
        if lost <= 0:
            continue
        deadline = reservation.start_deadline + lost
        if event.lasting:
            # Otherwise a deadline within the next second would be moved by a second many times.
            deadline = max(deadline, now + LASTING)
        changed = replace(reservation, start_deadline=deadline)
        if reservation.ready_at is None:
            changed = move_end(turn, changed, lost, cause, world.promise_of)
        world.put(changed, cause)
