"""Decisions on observations of servers: present, absent, ready, failed to start, stopped by their owner.

An observation without a result (``UNKNOWN``) changes what is shown and nothing else (invariant 8).
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from gpudev_hub.core.causes import Cause, Reason, Why
from gpudev_hub.core.effects import StopServer
from gpudev_hub.core.events import (
    OwnerKnown,
    ServerNotice,
    ServerObserved,
    ServerReady,
    StartFailed,
    StartTrouble,
    StopIntent,
)
from gpudev_hub.core.lifecycle import move
from gpudev_hub.core.model import (
    Claim,
    ClaimState,
    NodeStatus,
    Outcome,
    Presence,
    Reservation,
    ServerState,
    State,
)
from gpudev_hub.core.sentences import Text
from gpudev_hub.core.words import printable

from .access import access_detail
from .placing import give_places, requeue, without_place
from .timers import crossed
from .transitions import (
    Turn,
    finish,
    give_up_attempt,
    next_attempt,
    release_claim,
    slots_in,
    start_attempt,
    stop,
)
from .working_state import OWNER_UNKNOWN, demand_key, demand_of, is_owner_unknown

_WITH_SERVER = (State.STARTING, State.READY, State.STOPPING)


def _current(turn: Turn, id: str, attempt: int) -> Reservation | None:
    """Return the reservation, if this is its current attempt."""
    reservation = turn.world.reservations.get(id)
    if reservation is None or reservation.state not in _WITH_SERVER or reservation.attempt != attempt:
        return None
    return reservation


def observed(turn: Turn, event: ServerObserved) -> Reservation | None:
    """Record what is observed of one attempt. Attempts without a claim are ignored."""
    claim = turn.world.claims.get((event.id, event.attempt))
    if claim is None:
        return None
    event = msgspec.structs.replace(event, detail=printable(event.detail))
    reservation = _current(turn, event.id, event.attempt)
    if event.presence is Presence.UNKNOWN:
        _show(turn, reservation, ServerState.UNKNOWN, event.detail)
    elif event.presence is Presence.PRESENT:
        _present(turn, reservation, claim, event)
    elif reservation is None:
        turn.world.free_claim(claim, Cause.SERVER_GONE, turn.now)
    else:
        _absent(turn, reservation, claim, event)
    return reservation


def _show(turn: Turn, reservation: Reservation | None, server: ServerState, detail: str = "") -> None:
    """Record the observed state of the server, if it is new."""
    if reservation is not None and reservation.server is not server:
        cause = Reason(Cause.SERVER_SEEN, detail or server)
        turn.world.put(replace(reservation, server=server), cause)


def _present(turn: Turn, reservation: Reservation | None, claim: Claim, event: ServerObserved) -> None:
    seen = replace(claim, presence=Presence.PRESENT, seen=True)
    turn.world.put(seen, Cause.SERVER_SEEN)
    if reservation is None:
        return
    starting = reservation.state is State.STARTING
    _show(turn, reservation, ServerState.STARTING if starting else ServerState.RUNNING)
    live = reservation.state in (State.STARTING, State.READY)
    if not live or event.complete or claim.state is not ClaimState.HELD:
        return
    # A gang runs as a whole: the other ranks are stopped, and all start again unless the owner stopped them.
    if reservation.stopped_at is not None:
        turn.do(StopServer(reservation.id, reservation.attempt))
    else:
        reason = event.detail or "the server on one of its nodes ended"
        latest = turn.world.reservations[reservation.id]
        give_up_attempt(turn, latest, Reason(Cause.SERVER_GONE, reason), reason)


def _absent(turn: Turn, reservation: Reservation, claim: Claim, event: ServerObserved) -> None:
    """Decide on a current attempt whose server is certainly gone."""
    world = turn.world
    # A start that was stopped gives no reason: use what kept it from getting ready.
    known = reservation.trouble or reservation.detail if reservation.state is State.STARTING else ""
    detail = event.detail or known or "the server ended"
    cause = Reason(Cause.SERVER_GONE, detail)
    if reservation.state is State.STOPPING:
        world.free_claim(claim, cause, turn.now)
        finish(turn, reservation, cause)
    elif reservation.stopped_at is not None:
        world.put(replace(claim, presence=Presence.ABSENT), cause)
        _show(turn, reservation, ServerState.STOPPED)
    elif claim.state is ClaimState.RELEASING:
        next_attempt(turn, reservation, Reason(Cause.RESTARTED, reservation.detail), reservation.detail)
    elif claim.seen or reservation.state is State.READY:
        next_attempt(turn, reservation, cause, detail, counts=not event.outage)


def ready(turn: Turn, event: ServerReady) -> Reservation | None:
    """Record that the server can be used; the hold counts from the first time on."""
    reservation = _current(turn, event.id, event.attempt)
    if (
        reservation is None
        or reservation.state is not State.STARTING
        or reservation.stopped_at is not None
        or reservation.hard_end is None
    ):
        return reservation
    world, now = turn.world, turn.now
    claim = world.claim_of(reservation)
    if claim.state is not ClaimState.HELD:
        return reservation
    fields = {"start_deadline": None, "server": ServerState.RUNNING, "trouble": ""}
    if reservation.ready_at is not None:
        world.put(move(reservation, State.READY, **fields), Cause.READY)
        world.put(replace(claim, presence=Presence.PRESENT, seen=True), Cause.READY)
        return reservation
    hard_end = min(reservation.hard_end, now + reservation.request.hold + reservation.teardown)
    now_ready = move(reservation, State.READY, ready_at=now, hard_end=hard_end, detail="", **fields)
    # Do not warn at thresholds that the hold does not reach.
    now_ready = replace(now_ready, warned=crossed(now_ready, world.policy.warn_minutes, now))
    world.put(now_ready, Cause.READY)
    world.change_claim(replace(claim, presence=Presence.PRESENT, seen=True, hard_end=hard_end), Cause.READY)
    return reservation


def start_failed(turn: Turn, event: StartFailed) -> Reservation | None:
    """Retry a failed start, on other nodes if its node is at fault and others are free now."""
    reservation = _current(turn, event.id, event.attempt)
    if reservation is None or reservation.state is not State.STARTING or reservation.stopped_at is not None:
        return reservation
    claim = turn.world.claim_of(reservation)
    if claim.state is not ClaimState.HELD:
        return reservation
    reason = printable(event.reason)
    cause = Reason(Cause.START_FAILED, reason)
    if reservation.ready_at is None:
        if event.node is not None:
            reservation = replace(reservation, excluded=reservation.excluded | {event.node})
        at_fault = event.node is not None or _somewhere_away(turn, reservation)
        if at_fault and _elsewhere(turn, reservation, claim, cause, reason):
            return reservation
    give_up_attempt(turn, reservation, cause, reason)
    return reservation


def start_trouble(turn: Turn, event: StartTrouble) -> Reservation | None:
    """Keep the trouble for the owner to see, and as the reason if the start times out."""
    reservation = _current(turn, event.id, event.attempt)
    if reservation is not None and reservation.state is State.STARTING:
        trouble = printable(event.detail)
        turn.world.put(replace(reservation, trouble=trouble), Reason(Cause.SERVER_SEEN, trouble))
    return reservation


def server_notice(turn: Turn, event: ServerNotice) -> Reservation | None:
    """Keep the notice for the owner to see while this server runs."""
    reservation = _current(turn, event.id, event.attempt)
    if reservation is not None and reservation.state in (State.STARTING, State.READY):
        notice = printable(event.text)
        turn.world.put(
            replace(reservation, notice=notice), Reason(Cause.SERVER_SEEN, notice or "no problem any more")
        )
    return reservation


def _somewhere_away(turn: Turn, reservation: Reservation) -> bool:
    """Return whether a node of the reservation is not up; the plan avoids it, so it need not be excluded."""
    nodes = [turn.world.nodes.get(part.node) for part in reservation.allocation]
    return any(node is None or node.status is not NodeStatus.UP for node in nodes)


def _elsewhere(turn: Turn, reservation: Reservation, claim: Claim, cause: Why, detail: Text) -> bool:
    """Continue, with the same end, on other nodes that are free now; false if there are none."""
    world, now = turn.world, turn.now
    plan = world.plan_of(reservation)
    hard_end = claim.hard_end
    key = demand_key(*claim.key)
    demand = replace(demand_of(reservation), length=hard_end - now)
    # The old slots will be released, so they do not count against the owner here.
    world.displace(plan.reshape(key, hard_end, counts=False), cause)
    place = plan.earliest(demand, now, before=now + 1)
    slots = None if place is None else slots_in(world, place, demand.gpus)
    if place is None or slots is None:
        world.displace(plan.reshape(key, hard_end, counts=True), cause)
        return False
    attempt = reservation.attempt + 1
    world.put(
        replace(reservation, attempt=attempt, allocation=slots, detail=detail, trouble="", notice=""), cause
    )
    release_claim(turn, reservation, claim, cause)
    start_attempt(turn, world.reservations[reservation.id], cause)
    return True


def stop_intent(turn: Turn, event: StopIntent) -> Reservation | None:
    """Record that its owner stopped the server or its start; the slots stay for the restart window."""
    reservation = turn.world.reservations.get(event.id)
    if (
        reservation is None
        or reservation.state not in (State.STARTING, State.READY)
        or reservation.stopped_at is not None
    ):
        return reservation
    stopped = replace(reservation, stopped_at=turn.now, start_deadline=None)
    turn.world.put(stopped, Cause.STOPPED_BY_USER, reservation.owner.subject)
    if not turn.world.claim_of(reservation).seen:
        # A server that was never observed is not noticed to end, so it must be stopped explicitly.
        turn.do(StopServer(reservation.id, reservation.attempt))
    return reservation


def owner_known(turn: Turn, event: OwnerKnown) -> None:
    """Block or unblock an owner's reservations: the Hub starts no servers for users it does not know."""
    world = turn.world
    for reservation in world.of_owner(event.subject):
        waits = reservation.state is State.QUEUED
        if event.known:
            if not is_owner_unknown(reservation.blocked):
                continue
            if waits:
                give_places(turn, [replace(reservation, blocked=None)], lambda _: Cause.OWNER_KNOWN)
            elif world.claim_of(reservation).presence is Presence.ABSENT:
                next_attempt(turn, reservation, Cause.OWNER_KNOWN, "", counts=False)
        elif waits and not is_owner_unknown(reservation.blocked):
            world.unplan(reservation)
            world.put(without_place(reservation, OWNER_UNKNOWN), Cause.OWNER_UNKNOWN)
        elif reservation.state is State.STARTING and reservation.stopped_at is None:
            _cannot_start(turn, reservation)


def _cannot_start(turn: Turn, reservation: Reservation) -> None:
    """Stop a start for an unknown user. It does not count as failed, and holds no slots before READY."""
    if reservation.access_ends_at is not None:
        revoked = access_detail(turn.world, reservation.owner.subject)
        stop(turn, reservation, Outcome.ACCESS_REVOKED, Cause.OWNER_UNKNOWN, detail=revoked)
        return
    if reservation.ready_at is None:
        requeue(
            turn,
            reservation,
            Cause.OWNER_UNKNOWN,
            OWNER_UNKNOWN,
            place=None,
            promise=None,
            blocked=OWNER_UNKNOWN,
        )
        return
    # The hold has begun, and the owner did not cause this: the slots stay until they log in, or to the end.
    stopped = replace(reservation, stopped_at=turn.now, start_deadline=None, blocked=OWNER_UNKNOWN)
    turn.world.put(stopped, Cause.OWNER_UNKNOWN)
    turn.do(StopServer(reservation.id, reservation.attempt))
