"""The one function that decides: an event and the time in, changes to the working state and effects out.

Whatever is due is done first, ends before starts; then the event; then what has become possible through it.
"""

from __future__ import annotations

from gpudev_hub.core.effects import Decision
from gpudev_hub.core.events import (
    AccessLost,
    ClearLimits,
    Compress,
    End,
    Event,
    Extend,
    Mint,
    NodesObserved,
    NodeUnknown,
    OperatorNode,
    Outage,
    OwnerKnown,
    PersonSeen,
    Resume,
    ServerNotice,
    ServerObserved,
    ServerReady,
    SetLimits,
    Share,
    StartFailed,
    StartTrouble,
    StopIntent,
    Submit,
    Swept,
    Tick,
    Unshare,
)
from gpudev_hub.core.model import Millis, Reservation

from . import access, clock, extensions, guests, limit_rules, nodes, requests, servers
from .transitions import Turn
from .working_state import WorkingState


def decide(world: WorkingState, event: Event, now: Millis, *, last: bool = True) -> Decision:
    """Decide on one event at `now`, which never goes back from one call to the next.

    `world` is changed in place; `world.drain()` tells what is to be committed. Raises `Refused` for a request
    that is not granted; nothing of the request is then left in `world` (what was due by the clock is done all
    the same, and its effects go out with the next decision). `Decision.more`: a `Compress` should follow.
    What is asked for is one part of the changes, whatever else is done beside it. `last`: false for something
    that was seen where more of that follows at once: what the clock and this event make due waits for it.

    Whether the actor may do this to that reservation is not asked here: actors are for the history.
    """
    turn = Turn(world, now)
    # What was seen comes before what the clock says: a server gone at its very end has not overrun it.
    seen = isinstance(event, Outage | ServerObserved | ServerReady | StopIntent)
    if not seen:
        clock.advance(turn)
    world.end_part()
    asked = reservation = _handle(turn, event)
    world.end_part()
    parts = world.parts
    if reservation is not None:
        asked = _latest(world, reservation)
    if last:
        # A new request stands behind everybody who is still to be placed again.
        clock.advance(turn)
        world.end_part()
    # What nothing follows from any more is durable with the last part.
    effects = [(min(part, world.parts), effect) for part, effect in world.pending_effects]
    world.pending_effects = []
    if reservation is not None:
        reservation = _latest(world, reservation)
    return Decision(reservation, asked, parts, effects, more=not world.settled())


def next_due(world: WorkingState, now: Millis) -> Millis | None:
    """When the clock next makes something due, `now` if something already is; `None`: nothing will."""
    if world.to_settle:
        return now
    instants = [at for at in (world.alarms.next(), world.starts.next()) if at is not None]
    return max(now, min(instants)) if instants else None


def _handle(turn: Turn, event: Event) -> Reservation | None:
    match event:
        case Submit():
            return requests.submit(turn, event)
        case End():
            return requests.end(turn, event)
        case Extend():
            return extensions.extend(turn, event)
        case Resume():
            return requests.resume(turn, event)
        case Share():
            return guests.share(turn, event)
        case Unshare():
            return guests.unshare(turn, event)
        case Mint():
            requests.mint(turn, event)
        case SetLimits():
            limit_rules.set_limits(turn, event)
        case ClearLimits():
            limit_rules.clear_limits(turn, event)
        case PersonSeen():
            access.person_seen(turn, event)
        case AccessLost():
            access.access_lost(turn, event)
        case Swept():
            access.swept(turn, event)
        case ServerObserved():
            return servers.observed(turn, event)
        case ServerReady():
            return servers.ready(turn, event)
        case StartFailed():
            return servers.start_failed(turn, event)
        case ServerNotice():
            return servers.server_notice(turn, event)
        case StartTrouble():
            return servers.start_trouble(turn, event)
        case StopIntent():
            return servers.stop_intent(turn, event)
        case OwnerKnown():
            servers.owner_known(turn, event)
        case NodesObserved():
            nodes.observed(turn, event)
        case NodeUnknown():
            nodes.unknown(turn, event)
        case OperatorNode():
            nodes.operator(turn, event)
        case Outage():
            clock.outage(turn, event)
        case Compress():
            clock.compress(turn, event)
        case Tick():
            clock.tick(turn)
    return None


def _latest(world: WorkingState, reservation: Reservation) -> Reservation:
    """The reservation as it is now, also if it has just ended."""
    ended = world.last_ended
    if ended is not None and ended.id == reservation.id:
        return ended
    return world.reservations.get(reservation.id, reservation)
