"""Decisions on extensions: granted with the moves they need, or refused with the longest possible one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gpudev_hub.core.causes import Cause, Reason
from gpudev_hub.core.effects import Tell
from gpudev_hub.core.errors import NEW_REQUEST_ID, Code, Refused
from gpudev_hub.core.events import Extend
from gpudev_hub.core.limits import quota
from gpudev_hub.core.model import HOUR, MINUTE, SECOND, Extension, Millis, Place, Reservation, State
from gpudev_hub.core.sentences import Text, say
from gpudev_hub.core.words import duration, moment, node_state

from .access import check_access
from .placing import place_again
from .requests import find, told_by_operator
from .timers import crossed
from .transitions import Turn
from .working_state import demand_key, id_of

SHORTEST = MINUTE
"""The shortest extension. Each extension is stored for as long as the reservation lives."""

_MOST_EXTENSIONS = 8
"""Latest extensions of a reservation kept to recognise repeated requests; retries come within seconds."""


def extend(turn: Turn, event: Extend) -> Reservation:
    """Extend the hold, all or nothing; a refusal names the longest extension that is possible now."""
    world, now = turn.world, turn.now
    reservation = find(turn, event.id)
    check_access(world, reservation.owner.subject)
    if is_repeated(reservation, event.request_id, event.by):
        return reservation
    if event.by < SHORTEST - SECOND:  # a minute in hours, as refusals offer it, is rounded down
        asked = duration(event.by) if event.by > 0 else f"{event.by / HOUR:g} h"
        raise Refused(
            Code.INVALID_HOURS,
            f"You asked for an extension by {asked}; the shortest is {duration(SHORTEST)}.",
            "Use a longer time, for example 1 hour.",
        )
    if reservation.state not in (State.STARTING, State.READY) or reservation.hard_end is None:
        raise _too_early_or_late(reservation)
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
    moved = world.move_places(moves, Cause.MOVED_FOR_EXTENSION, _told_of(reservation))
    cause = Reason(Cause.EXTENDED, event.reason)
    claim = world.claim_of(reservation)
    longer = replace(
        reservation,
        request=replace(reservation.request, hold=reservation.request.hold + event.by),
        extended=reservation.extended + event.by,
        extensions=_remembered(reservation, event),
        hard_end=hard_end + event.by,
    )
    # Warn again at thresholds that lie ahead again.
    passed = crossed(longer, world.policy.warn_minutes, now)
    longer = replace(longer, warned=tuple(m for m in longer.warned if m in passed))
    world.put(longer, cause, event.actor)
    world.put(replace(claim, hard_end=hard_end + event.by), cause, event.actor)
    if event.actor != reservation.owner.subject:
        what = f"extended this reservation by {duration(event.by)}, until {moment(longer.ends_at or 0, now)}"
        turn.do(Tell(reservation.id, told_by_operator(what, event.reason)))
    for other in moved:
        turn.do(Tell(other.id, other.detail))
    world.freed.add(reservation.request.pool)
    return longer


def _told_of(extended: Reservation) -> Callable[[Reservation, Place], Text]:
    """Return the function that makes the texts for owners of places moved for an extension."""

    def told(moved: Reservation, place: Place) -> Text:
        why = f"{extended.owner.login} extended a reservation"
        return say("moved", start=place.start, why=why, guaranteed=moved.promise or place.start)

    return told


def is_repeated(reservation: Reservation, request_id: str | None, by: Millis) -> bool:
    """Return whether this extension was granted before. Raises ``Refused`` if another one had its id."""
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
    """Return the longest extension up to ``limit`` that is possible now, in whole minutes if possible."""
    world, plan = turn.world, turn.world.plan_of(reservation)
    key, end = demand_key(reservation.id, reservation.attempt), reservation.hard_end or 0
    if limit <= 0:
        return 0
    longest = plan.longest_grantable(key, turn.now, end + limit, world.promise_of) - end
    minutes = longest - longest % MINUTE
    if plan.longest_grantable(key, turn.now, end + minutes, world.promise_of) - end == minutes:
        return minutes
    return longest


def _too_early_or_late(reservation: Reservation) -> Refused:
    name = reservation.request.name or reservation.id
    if reservation.state is State.QUEUED:
        why = "Only a reservation that has started can be extended."
        hint = "Cancel it, and make a new request with more hours."
    else:
        why = "It can no longer be extended."
        hint = "Make a new reservation."
    return Refused(Code.WRONG_STATE, f"Reservation {name} is {reservation.state}. {why}", hint)


def _refusal(reservation: Reservation, by: Millis, longest: Millis, why: str) -> Refused:
    name = reservation.request.name or reservation.id
    message = f"Reservation {name} cannot be extended by {duration(by)}: {why}."
    # Hours as a short decimal, rounded down so that this length can be granted.
    hours = int(longest / HOUR * 10_000) / 10_000 if longest >= MINUTE else 0.0
    if hours:
        message += f" The longest extension now is {duration(longest)}."
        hint = f"Use `gpu-dev extend {name} --hours {hours:g}`."
    else:
        message += " No extension is possible now."
        hint = "Save your work. A new request goes to the end of the queue."
    return Refused(Code.EXTENSION_REFUSED, message, hint, longest_hours=hours)


def _in_the_way(turn: Turn, reservation: Reservation, new_end: Millis) -> str:
    """Return the text that says what keeps the reservation from running until ``new_end``."""
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
