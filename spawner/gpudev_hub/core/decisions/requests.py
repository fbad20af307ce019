"""Decisions on what people ask for: submit, end, extend, resume, an id for a spawn page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gpudev_hub.core.effects import Tell
from gpudev_hub.core.errors import NEW_REQUEST_ID, SEE_YOURS, TRY_AGAIN, Code, Refused
from gpudev_hub.core.events import Cause, End, Extend, Mint, Resume, Submit
from gpudev_hub.core.limits import quota
from gpudev_hub.core.limits.rules import limits_of
from gpudev_hub.core.model import (
    HOUR,
    MINUTE,
    Extension,
    Millis,
    MintedId,
    Outcome,
    Place,
    Presence,
    Request,
    Reservation,
    State,
)
from gpudev_hub.core.words import duration, instant, moment, node_state

from .access import check_access
from .default_names import default_names
from .limit_rules import raise_caps
from .placing import find_place, place_again
from .timers import crossed
from .transitions import Turn, cancel, free_slots, next_attempt, stop
from .working_state import demand_key, demand_of, id_of

#: Unused ids of one subject that are kept; the oldest are forgotten.
_MOST_MINTED = 20
#: Extensions of one reservation of which a repetition is recognised; retries come within seconds.
_MOST_EXTENSIONS = 8

_CAUSE_OF = {
    Outcome.RELEASED: Cause.RELEASED,
    Outcome.CANCELLED: Cause.CANCELLED,
    Outcome.EXPIRED: Cause.EXPIRED,
    Outcome.NODE_LOST: Cause.NODE_LOST,
}


def find(turn: Turn, id: str) -> Reservation:
    """The live reservation, or `Refused`."""
    reservation = turn.world.reservations.get(id)
    if reservation is None:
        raise Refused(Code.NOT_FOUND, f"There is no reservation {id}.", SEE_YOURS)
    return reservation


def submit(turn: Turn, event: Submit) -> Reservation:
    """A new request: refused, or in the queue with a place, which may begin now."""
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
    """Return what `submit` would make of a request, and whether it would start at once.

    Raises `Refused` as `submit` does. Nothing is recorded of the request; what is due by now is done before.
    """
    reservation = find_place(turn.world, _new(turn, event), turn.now)
    place = reservation.place
    due = place is not None and place.start <= turn.now
    return reservation, due and place is not None and free_slots(turn, reservation, place) is not None


def _new(turn: Turn, event: Submit) -> Reservation:
    """Return the reservation of a request, without a place; `Refused` if its owner may not have it."""
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
    # A new request stands behind everybody who is still to be placed again.
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
    """Whether `known` is what this request asked for: extensions and a default name are no difference."""
    asked = replace(known.request, hold=known.request.hold - known.extended)
    if request.name is None and asked.name in default_names(known.id):
        asked = replace(asked, name=None)
    return asked == request


def end(turn: Turn, event: End) -> Reservation:
    """Cancel what waits, release what has slots; what is being stopped or has ended stays as it is."""
    reservation = find(turn, event.id)
    outcome = event.outcome
    if reservation.state is State.STOPPING:
        return reservation
    if outcome is Outcome.ENDED_BY_OPERATOR:
        # Before the server is stopped, so that its terminals still show it.
        turn.do(Tell(reservation.id, _told_by_operator("ended this reservation", event.reason)))
    if reservation.state is State.QUEUED:
        if outcome is None or outcome is Outcome.RELEASED:
            outcome = Outcome.CANCELLED
        cancel(turn, reservation, outcome, _cause(outcome), event.actor, detail=event.reason)
    else:
        if outcome is None or outcome is Outcome.CANCELLED:
            outcome = Outcome.RELEASED
        # An earlier restart is not why it ends.
        stop(turn, reservation, outcome, _cause(outcome), event.actor, detail=event.reason)
    return reservation


def _told_by_operator(what: str, reason: str) -> str:
    """Return what the owner of a reservation is told when an operator did something to it."""
    return f"An operator {what}{f': {reason}' if reason else ''}".rstrip(".") + "."


def _cause(outcome: Outcome) -> str:
    cause = _CAUSE_OF.get(outcome)
    return f"{Cause.OPERATOR}: {outcome}" if cause is None else str(cause)


def extend(turn: Turn, event: Extend) -> Reservation:
    """Extend the hold, all or nothing; a refusal names the longest extension that is possible now."""
    world, now = turn.world, turn.now
    reservation = find(turn, event.id)
    check_access(world, reservation.owner.subject)
    if is_repeated(reservation, event.request_id, event.by):
        return reservation
    if event.by <= 0:
        raise Refused(
            Code.INVALID_HOURS,
            f"You asked for an extension by {event.by / HOUR:g} h; it must be longer than zero.",
            "Use a positive number of hours, for example --hours 1.",
        )
    if reservation.state not in (State.STARTING, State.READY) or reservation.hard_end is None:
        raise Refused(
            Code.WRONG_STATE,
            f"Reservation {reservation.id} is {reservation.state}. "
            "Only a reservation that has started can be extended.",
            "Cancel it, and make a new request with more hours."
            if reservation.state is State.QUEUED
            else "Make a new reservation.",
        )
    live = world.of_owner(reservation.owner.subject)
    allowed, limit = quota.longest_extension(world.policy, world, reservation, live, now)
    key = demand_key(reservation.id, reservation.attempt)
    plan, hard_end = world.plan_of(reservation), reservation.hard_end
    place_again(turn, most=None)
    moves = None
    if event.by <= allowed:
        moves = plan.extend(key, hard_end + event.by, now, world.promise_of)
    if moves is None:
        why = limit if event.by > allowed else _in_the_way(turn, reservation, hard_end + event.by)
        longest = _longest(turn, reservation, min(event.by, allowed))
        raise _refusal(reservation, event.by, longest, why)
    # Room first: if this falls into parts and a crash comes between them, nobody is in anybody's way.
    moved = world.move_places(moves, Cause.MOVED_FOR_EXTENSION, _told_of(reservation))
    cause = f"{Cause.EXTENDED}: {event.reason}" if event.reason else str(Cause.EXTENDED)
    claim = world.claim_of(reservation)
    longer = replace(
        reservation,
        request=replace(reservation.request, hold=reservation.request.hold + event.by),
        extended=reservation.extended + event.by,
        extensions=_remembered(reservation, event),
        hard_end=hard_end + event.by,
    )
    # Thresholds that lie ahead again are armed again.
    passed = crossed(longer, world.policy.warn_minutes, now)
    longer = replace(longer, warned=tuple(m for m in longer.warned if m in passed))
    world.put(longer, cause, event.actor)
    world.put(replace(claim, hard_end=hard_end + event.by), cause, event.actor)
    if event.actor != reservation.owner.subject:
        what = f"extended this reservation by {duration(event.by)}, until {instant(longer.ends_at or 0)}"
        turn.do(Tell(reservation.id, _told_by_operator(what, event.reason)))
    for other in moved:
        turn.do(Tell(other.id, other.detail))
    world.freed.add(reservation.request.pool)
    return longer


def _told_of(extended: Reservation) -> Callable[[Reservation, Place], str]:
    """What the owners of places that are moved for an extension are told."""

    def told(moved: Reservation, place: Place) -> str:
        return (
            f"planned start is now {instant(place.start)}: {extended.owner.login} extended a reservation; "
            f"still guaranteed by {instant(moved.promise or place.start)}"
        )

    return told


def is_repeated(reservation: Reservation, request_id: str | None, by: Millis) -> bool:
    """Whether this very extension was granted before; `Refused` if its id was another one's."""
    for granted in reservation.extensions:
        if granted.request_id == request_id:
            if granted.by == by:
                return True
            raise Refused(
                Code.REQUEST_ID_REUSED,
                f"The request id {request_id} was already used for an extension by {duration(granted.by)}, "
                f"not by {duration(by)}.",
                NEW_REQUEST_ID,
            )
    return False


def _remembered(reservation: Reservation, event: Extend) -> tuple[Extension, ...]:
    if event.request_id is None:
        return reservation.extensions
    return (*reservation.extensions, Extension(event.request_id, event.by))[-_MOST_EXTENSIONS:]


def _longest(turn: Turn, reservation: Reservation, limit: Millis) -> Millis:
    """The longest extension up to `limit` that would be granted now, in whole minutes if that is too."""
    world, plan = turn.world, turn.world.plan_of(reservation)
    key, end = demand_key(reservation.id, reservation.attempt), reservation.hard_end or 0
    if limit <= 0:
        return 0
    longest = plan.longest_grantable(key, turn.now, end + limit, world.promise_of) - end
    minutes = longest - longest % MINUTE
    if plan.longest_grantable(key, turn.now, end + minutes, world.promise_of) - end == minutes:
        return minutes
    return longest


def _refusal(reservation: Reservation, by: Millis, longest: Millis, why: str) -> Refused:
    name = reservation.request.name or reservation.id
    message = f"Reservation {name} cannot be extended by {duration(by)}: {why}."
    if longest < MINUTE:
        return Refused(
            Code.EXTENSION_REFUSED,
            f"{message} No extension is possible now.",
            "Save your work. A new request goes to the end of the queue.",
            longest_hours=0.0,
        )
    return Refused(
        Code.EXTENSION_REFUSED,
        f"{message} The longest extension now is {duration(longest)}.",
        f"Use `gpu-dev extend {name} --hours {_hours(longest):g}`.",
        longest_hours=_hours(longest),
    )


def _hours(length: Millis) -> float:
    """Hours as a short decimal that is never more than `length`: what is asked for is granted."""
    return int(length / HOUR * 10_000) / 10_000


def _in_the_way(turn: Turn, reservation: Reservation, new_end: Millis) -> str:
    """Return, in words, what keeps the reservation from running until `new_end`."""
    world = turn.world
    plan = world.plan_of(reservation)
    for part in reservation.allocation:
        node = world.nodes.get(part.node)
        if node is None or not node.planned:
            return node_state(part.node, node)
        if node.until is not None and new_end > node.until:
            return f"{part.node} is available only until {moment(node.until, turn.now)}"
    key = demand_key(reservation.id, reservation.attempt)
    obstacle = plan.obstacle(key, new_end, turn.now, world.promise_of)
    if obstacle is None:
        return "other reservations need its GPUs after its current end"
    blocking = world.reservations[id_of(obstacle)]
    name = blocking.request.name or blocking.id
    if blocking.owner.subject == reservation.owner.subject:
        return (
            f"your queued request {name} needs the GPUs by then "
            f"(cancel {name} if this reservation is more important)"
        )
    start = moment(world.promise_of(obstacle), turn.now)
    return f"{blocking.owner.login}'s queued request {name} is guaranteed to start by {start}"


def resume(turn: Turn, event: Resume) -> Reservation:
    """Start the server again that its owner stopped; one that runs or starts already is left alone."""
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
            Code.WRONG_STATE,
            f"The server of reservation {reservation.id} is still stopping.",
            TRY_AGAIN,
        )
    next_attempt(turn, reservation, Cause.RESTARTED, "", counts=False)
    return reservation


def mint(turn: Turn, event: Mint) -> None:
    """Hand out an id; of those the subject never used, the oldest are forgotten."""
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
