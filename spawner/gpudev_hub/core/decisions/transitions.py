"""The steps of a reservation: admitted, tried again, requeued, stopped, ended.

Decisions are made of them. They keep record, claim and plan in step, and collect effects.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gpudev_hub.core.causes import Cause, Reason, Why
from gpudev_hub.core.effects import Effect, RevokeAccess, StartServer, StopServer, Tell
from gpudev_hub.core.errors import IllegalMove
from gpudev_hub.core.lifecycle import move
from gpudev_hub.core.limits.quota import counted_claims
from gpudev_hub.core.model import (
    Claim,
    ClaimState,
    Millis,
    NodeSlots,
    Outcome,
    Place,
    Presence,
    Reservation,
    ServerState,
    State,
)
from gpudev_hub.core.planning.plan import PromiseOf
from gpudev_hub.core.planning.slots import choose_slots
from gpudev_hub.core.sentences import Text, because, say
from gpudev_hub.core.words import duration

from .unit_of_work import SERVICE
from .working_state import WorkingState, demand_key, is_missed, overdue_cause


@dataclass(slots=True)
class Turn:
    """One decision in progress."""

    world: WorkingState
    now: Millis

    def do(self, effect: Effect) -> None:
        """Perform this once the changes are durable."""
        self.world.pending_effects.append(effect)


def admit(turn: Turn, reservation: Reservation) -> None:
    """Start a reservation whose planned start has come: slots, a claim, and a server.

    It waits for slots that are late, until that is an overrun and it is placed again, and for nodes that are
    away, until the grace is over. A late start keeps its planned end and has less start-up allowance. If more
    than half of the allowance is gone, the end moves along if that keeps all promises. Otherwise the hold is
    shorter, and the owner is told. A start that would lose more than half of its hold is placed again.
    """
    world, now = turn.world, turn.now
    world.waiting.discard(reservation.id)
    place = reservation.place
    if place is None or place.start > now:
        raise IllegalMove(f"{reservation.id} is admitted at {now}, but planned for {place}")
    if (away := world.away(place)) is not None:
        world.wait(reservation.id, now, Reason(Cause.NODE_CHANGED, away))
        return
    late = now - place.start
    hold = reservation.request.hold
    if is_missed(reservation, now):
        cause = _late_cause(world, reservation, "missed", now)
        world.unplan(reservation)
        world.displace([reservation.id], cause)
        return
    slots = free_slots(turn, reservation, place)
    if slots is None:
        world.wait(reservation.id, now, overdue_cause(world.overdue_for(reservation, place, now)))
        return
    in_time = 2 * late <= reservation.startup
    cause = _late_cause(world, reservation, "late", now)
    world.held_up.pop(reservation.id, None)
    admitted = move(
        reservation,
        State.STARTING,
        place=None,
        attempt=reservation.attempt + 1,
        admitted_at=now,
        start_deadline=place.end - hold - reservation.teardown if in_time else now + reservation.startup,
        hard_end=place.end,
        allocation=slots,
        server=ServerState.STARTING,
        warned=(),
        detail="",
    )
    world.put(admitted, Cause.ADMITTED)
    start_attempt(turn, world.reservations[reservation.id], Cause.ADMITTED)
    # Earlier attempts no longer count against the owner.
    for claim in world.claims_of(reservation.id)[:-1]:
        world.refresh(claim, Cause.ADMITTED)
    if not in_time:
        # Past trouble with a node must not make planned starts later.
        short = cause.cause is Cause.NODE_CHANGED
        limit = world.start_of if short else world.promise_of
        world.put(move_end(turn, world.reservations[reservation.id], late, cause, limit), cause)


def _late_cause(world: WorkingState, reservation: Reservation, what: str, now: Millis) -> Reason:
    """Return why and by how much a start is late: it was held up, or the service did not run."""
    assert reservation.place is not None
    late = now - reservation.place.start
    story = say("late_start", reservation=reservation.id, how=what, length=duration(late))
    since, cause = world.held_up.get(reservation.id, (now, None))
    if cause is None or 2 * (now - since) < late:
        return Reason(Cause.OUTAGE, story)
    return Reason(cause.cause, because(story, cause.detail))


def move_end(turn: Turn, reservation: Reservation, by: Millis, cause: Why, limit: PromiseOf) -> Reservation:
    """Return the reservation with a later end if that fits like an extension; otherwise tell its owner.

    ``limit``: the latest starts of the requests behind it.
    """
    world, now = turn.world, turn.now
    assert reservation.hard_end is not None
    end = reservation.hard_end + by
    claim = world.claim_of(reservation)
    key = demand_key(reservation.id, reservation.attempt)
    moves = world.plan_of(reservation).extend(key, end, now, limit)
    if moves is None:
        text = f"the start was delayed by {duration(by)}; later reservations need the GPUs, "
        text += "so the hold time may be shorter"
        turn.do(Tell(reservation.id, text))
        return replace(reservation, detail=text)
    world.move_places(moves, cause)
    world.put(replace(claim, hard_end=end), cause)
    world.freed.add(reservation.request.pool)
    return replace(reservation, hard_end=end)


def free_slots(turn: Turn, reservation: Reservation, place: Place) -> tuple[NodeSlots, ...] | None:
    """Return slots on the nodes of a due place; ``None`` while claims past their hard end take them."""
    world, now = turn.world, turn.now
    shape, subject = reservation.request.shape, reservation.owner.subject
    slots = slots_in(world, place, shape.gpus)
    held = sum(claim.gpus for claim in counted_claims(world, subject, reservation.request.pool))
    if slots is not None and held + shape.total_gpus <= reservation.cap:
        return slots
    if not world.overdue_for(reservation, place, now):
        free = {name: world.free_slots(name) for name in place.nodes}
        raise IllegalMove(
            f"{reservation.id} is planned for {place}, where there is no room: {free}, {held} held"
        )
    return None


def slots_in(world: WorkingState, place: Place, gpus: int) -> tuple[NodeSlots, ...] | None:
    """Return free slots for ``gpus`` on each node of a place; ``None`` if a node has too few."""
    parts = []
    for name in place.nodes:
        free = world.free_slots(name)
        if len(free) < gpus:
            return None
        parts.append(NodeSlots(name, choose_slots(free, gpus, world.nodes[name].gpus)))
    return tuple(parts)


def start_attempt(turn: Turn, reservation: Reservation, cause: Why) -> None:
    """Claim the allocation for the current attempt, and start its server."""
    assert reservation.hard_end is not None, f"{reservation.id} starts without an end"
    claim = Claim(
        reservation=reservation.id,
        attempt=reservation.attempt,
        subject=reservation.owner.subject,
        pool=reservation.request.pool,
        allocation=reservation.allocation,
        hard_end=reservation.hard_end,
    )
    turn.world.add_claim(claim, cause, turn.now)
    turn.do(StartServer(reservation.id, reservation.attempt))


def next_attempt(
    turn: Turn, reservation: Reservation, cause: Why, detail: Text, *, counts: bool = True
) -> None:
    """Start another attempt on the same slots with the same end, once the server is observed gone.

    After READY this is a restart, counted unless the owner asked for it. One too many ends the reservation as
    failed. The reason of an uncounted restart is shown until the server is ready; the reason of a crash
    stays.
    """
    world, now = turn.world, turn.now
    claim = world.claim_of(reservation)
    again = reservation.ready_at is not None
    deadline = None if again else reservation.start_deadline
    restarts = reservation.restarts + (1 if again and counts else 0)
    if restarts > world.policy.restart_attempts:
        world.change_claim(replace(claim, presence=Presence.ABSENT), cause)
        stop(
            turn,
            reservation,
            Outcome.FAILED,
            cause,
            detail=because(f"the server ended {restarts} times; the last time", detail),
        )
        return
    world.free_claim(claim, cause, now)
    fields: dict[str, Any] = {
        "attempt": reservation.attempt + 1,
        "restarts": restarts,
        "server": ServerState.STARTING,
        "stopped_at": None,
        "blocked": None,
        "notice": "",
        "trouble": "" if counts else detail,
        # Attempts to become ready share one allowance, unless the owner stopped a start.
        "start_deadline": now + reservation.startup if deadline is None else deadline,
        "detail": detail if counts else "",
    }
    if reservation.state is State.STARTING:
        world.put(replace(reservation, **fields), cause)
    else:
        world.put(move(reservation, State.STARTING, **fields), cause)
    start_attempt(turn, world.reservations[reservation.id], cause)


def give_up_attempt(turn: Turn, reservation: Reservation, cause: Why, detail: Text) -> None:
    """Stop the current attempt's server; another attempt starts on its slots once it is gone."""
    claim = turn.world.claim_of(reservation)
    turn.world.change_claim(replace(claim, state=ClaimState.RELEASING), cause)
    turn.world.put(replace(reservation, detail=detail), cause)
    turn.do(StopServer(reservation.id, reservation.attempt))


def release_claim(turn: Turn, reservation: Reservation, claim: Claim, cause: Why) -> None:
    """Stop a claim's server; its slots should be free after the tear-down allowance."""
    hard_end = min(claim.hard_end, turn.now + reservation.teardown)
    turn.world.change_claim(replace(claim, state=ClaimState.RELEASING, hard_end=hard_end), cause)
    turn.do(StopServer(claim.reservation, claim.attempt))


def stop(
    turn: Turn,
    reservation: Reservation,
    outcome: Outcome,
    cause: Why,
    actor: str = SERVICE,
    detail: Text | None = None,
) -> None:
    """Stop a reservation with this outcome; it ends at once if its server is known to be gone."""
    world = turn.world
    assert reservation.hard_end is not None, f"{reservation.id} is stopped, and never had an end"
    stopping = move(
        reservation,
        State.STOPPING,
        stop_outcome=outcome,
        hard_end=min(reservation.hard_end, turn.now + reservation.teardown),
        start_deadline=None,
        detail=reservation.detail if detail is None else detail,
    )
    world.put(stopping, cause, actor)
    claim = world.claim_of(reservation)
    release_claim(turn, reservation, claim, cause)
    if claim.presence is Presence.ABSENT:
        world.free_claim(claim, cause, turn.now)
        finish(turn, world.reservations[reservation.id], cause)


def finish(turn: Turn, reservation: Reservation, cause: Why) -> None:
    """End a reservation that was being stopped."""
    if reservation.stop_outcome is Outcome.ACCESS_REVOKED:
        # The server's own token was kept while the server ran.
        turn.do(RevokeAccess(reservation.owner.subject))
    turn.world.end(
        move(
            reservation,
            State.ENDED,
            outcome=reservation.stop_outcome,
            ended_at=turn.now,
            server=ServerState.STOPPED,
        ),
        cause,
    )


def cancel(
    turn: Turn,
    reservation: Reservation,
    outcome: Outcome,
    cause: Why,
    actor: str = SERVICE,
    detail: Text = "",
) -> None:
    """End a request that waited in the queue."""
    turn.world.unplan(reservation)
    turn.world.end(
        move(
            reservation,
            State.ENDED,
            place=None,
            blocked=None,
            outcome=outcome,
            ended_at=turn.now,
            detail=detail or reservation.detail,
        ),
        cause,
        actor,
    )
    # The Hub may have a server of this name that never started.
    turn.do(StopServer(reservation.id, reservation.attempt))
