"""Decisions on what people ask for: submit, end, resume, an id for a spawn page."""

from __future__ import annotations

from dataclasses import replace

from gpudev_hub.core.causes import Cause, Reason, Why
from gpudev_hub.core.effects import Tell
from gpudev_hub.core.errors import NEW_REQUEST_ID, SEE_YOURS, TRY_AGAIN, Code, Refused
from gpudev_hub.core.events import End, Mint, Resume, Submit
from gpudev_hub.core.limits import quota
from gpudev_hub.core.limits.rules import limits_of
from gpudev_hub.core.model import MintedId, Outcome, Presence, Request, Reservation, State

from .access import check_access
from .default_names import default_names
from .limit_rules import raise_caps
from .placing import find_place, place_again
from .transitions import Turn, cancel, free_slots, next_attempt, stop
from .working_state import demand_of

_MOST_MINTED = 20
"""Unused ids kept for one subject; the oldest are forgotten."""
_CAUSE_OF = {
    Outcome.RELEASED: Cause.RELEASED,
    Outcome.CANCELLED: Cause.CANCELLED,
    Outcome.EXPIRED: Cause.EXPIRED,
    Outcome.NODE_LOST: Cause.NODE_LOST,
}


def find(turn: Turn, id: str) -> Reservation:
    """Return the live reservation. Raises ``Refused`` if there is none."""
    reservation = turn.world.reservations.get(id)
    if reservation is None:
        raise Refused(Code.NOT_FOUND, f"There is no reservation {id}.", SEE_YOURS)
    return reservation


def submit(turn: Turn, event: Submit) -> Reservation:
    """Add a request to the queue with a place, which may begin now. Raises ``Refused``."""
    world, now, request, subject = turn.world, turn.now, event.request, event.owner.subject
    check_access(world, subject)
    known = world.by_request(subject, event.request_id)
    if known is not None:
        if same_request(known, request):
            return known
        raise Refused(
            Code.REQUEST_ID_REUSED,
            f"The request id {event.request_id} was already used for reservation {known.id}, "
            "which is a different request.",
            NEW_REQUEST_ID,
        )
    minted = world.minted.get(event.id)
    if event.id in world.reservations or world.claims_of(event.id) or (minted and minted.subject != subject):
        raise Refused(
            Code.INVALID_REQUEST,
            f"The id {event.id} cannot be used for a new reservation.",
            "Open the form for a new reservation again.",
        )
    reservation = find_place(world, _new(turn, event), now)
    if reservation.place is not None:
        world.plan_of(reservation).put(demand_of(reservation), reservation.place)
    world.next_seq += 1
    if minted is not None:
        world.drop(minted, Cause.USED, subject)
    world.put(reservation, Cause.REQUESTED, subject)
    return reservation


def look_ahead(turn: Turn, event: Submit) -> tuple[Reservation, bool]:
    """Return what ``submit`` would make of a request, and whether it would start at once.

    Raises ``Refused`` as ``submit`` does. The request is not recorded, but what is due by now is done first.
    """
    reservation = find_place(turn.world, _new(turn, event), turn.now)
    place = reservation.place
    due = place is not None and place.start <= turn.now
    return reservation, due and place is not None and free_slots(turn, reservation, place) is not None


def _new(turn: Turn, event: Submit) -> Reservation:
    """Return a reservation without a place. Raises ``Refused`` if its owner may not have it."""
    world, request, subject = turn.world, event.request, event.owner.subject
    quota.check_submit(world.policy, world, subject, request, world.of_owner(subject), turn.now)
    namesake = world.by_name(subject, request.name)
    if request.name is None:
        free = (name for name in event.names if world.by_name(subject, name) is None)
        request = replace(request, name=next(free, None))
    elif namesake is not None:
        raise Refused(
            Code.NAME_TAKEN,
            f"Your reservation {namesake.id} ({namesake.state}) already has the name {request.name}.",
            f"Choose another name, or release that reservation with `gpu-dev cancel {request.name}`.",
        )
    # Requests that must be placed again come before a new request.
    raise_caps(turn, most=None)
    place_again(turn, most=None)
    pool = world.policy.pool(request.pool)
    return Reservation(
        id=event.id,
        seq=world.next_seq,
        owner=event.owner,
        request=request,
        request_id=event.request_id,
        created_at=turn.now,
        startup=pool.startup,
        teardown=pool.teardown,
        cap=limits_of(world.policy, world, subject, request.pool).values.running_gpus,
    )


def same_request(known: Reservation, request: Request) -> bool:
    """Return whether ``known`` is what this request asked for, apart from extensions and a default name."""
    asked = replace(known.request, hold=known.request.hold - known.extended)
    if request.name is None and asked.name in default_names(known.id):
        asked = replace(asked, name=None)
    return asked == request


def end(turn: Turn, event: End) -> Reservation:
    """Cancel a queued request, or stop a reservation that has slots; one being stopped stays as it is."""
    reservation = find(turn, event.id)
    outcome = event.outcome
    if reservation.state is State.STOPPING:
        return reservation
    if outcome is Outcome.ENDED_BY_OPERATOR:
        # Before the server is stopped, so that its terminals still show it.
        turn.do(Tell(reservation.id, told_by_operator("ended this reservation", event.reason)))
    if reservation.state is State.QUEUED:
        if outcome is None or outcome is Outcome.RELEASED:
            outcome = Outcome.CANCELLED
        cancel(turn, reservation, outcome, _cause(outcome), event.actor, detail=event.reason)
    else:
        if outcome is None or outcome is Outcome.CANCELLED:
            outcome = Outcome.RELEASED
        # The detail must not keep the reason of an earlier restart.
        stop(turn, reservation, outcome, _cause(outcome), event.actor, detail=event.reason)
    return reservation


def told_by_operator(what: str, reason: str) -> str:
    """Return what the owner of a reservation is told when an operator did something to it."""
    return f"An operator {what}{f': {reason}' if reason else ''}".rstrip(".") + "."


def _cause(outcome: Outcome) -> Why:
    return _CAUSE_OF.get(outcome) or Reason(Cause.OPERATOR, outcome)


def resume(turn: Turn, event: Resume) -> Reservation:
    """Restart a server that its owner stopped; a server that runs or starts already is left alone."""
    reservation = find(turn, event.id)
    check_access(turn.world, reservation.owner.subject)
    if reservation.state not in (State.STARTING, State.READY):
        raise Refused(
            Code.WRONG_STATE,
            f"Reservation {reservation.id} is {reservation.state}. It has no stopped server to start again.",
            "Its server starts automatically when its turn comes."
            if reservation.state is State.QUEUED
            else "Make a new reservation.",
        )
    if reservation.stopped_at is None:
        return reservation
    if turn.world.claim_of(reservation).presence is not Presence.ABSENT:
        raise Refused(
            Code.WRONG_STATE, f"The server of reservation {reservation.id} is still stopping.", TRY_AGAIN
        )
    next_attempt(turn, reservation, Cause.RESTARTED, "", counts=False)
    return reservation


def mint(turn: Turn, event: Mint) -> None:
    """Issue an id, and forget the oldest unused ids of the subject."""
    world = turn.world
    check_access(world, event.subject)
    if event.id in world.reservations or event.id in world.minted or world.claims_of(event.id):
        raise Refused(Code.INVALID_REQUEST, f"The id {event.id} was already issued.", "Request another id.")
    unused = sorted(
        (m for m in world.minted.values() if m.subject == event.subject), key=lambda m: (m.minted_at, m.id)
    )
    for old in unused[: max(0, len(unused) + 1 - _MOST_MINTED)]:
        world.drop(old, Cause.EXPIRED)
    world.put(MintedId(event.id, event.subject, turn.now), Cause.MINTED, event.subject)
