"""The one function that decides: an event and the time in, changes to the working state and effects out.

What is due is done first, ends before starts; then the event; then what the event has made possible.
Observations come before what is due.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from gpudev_hub.core import events
from gpudev_hub.core.effects import Decision
from gpudev_hub.core.events import Event
from gpudev_hub.core.model import Millis, Reservation

from . import access, clock, extensions, guests, limit_rules, nodes, requests, servers
from .transitions import Turn
from .working_state import WorkingState

HANDLERS: Final[Mapping[type[Event], Callable[[Turn, Any], Reservation | None]]] = {
    events.Submit: requests.submit,
    events.End: requests.end,
    events.Extend: extensions.extend,
    events.Resume: requests.resume,
    events.Share: guests.share,
    events.Unshare: guests.unshare,
    events.Mint: requests.mint,
    events.SetLimits: limit_rules.set_limits,
    events.ClearLimits: limit_rules.clear_limits,
    events.PersonSeen: access.person_seen,
    events.AccessLost: access.access_lost,
    events.Swept: access.swept,
    events.ServerObserved: servers.observed,
    events.ServerReady: servers.ready,
    events.StartFailed: servers.start_failed,
    events.ServerNotice: servers.server_notice,
    events.StartTrouble: servers.start_trouble,
    events.StopIntent: servers.stop_intent,
    events.OwnerKnown: servers.owner_known,
    events.NodesObserved: nodes.observed,
    events.NodeUnknown: nodes.unknown,
    events.OperatorNode: nodes.operator,
    events.Outage: clock.outage,
    events.Compress: clock.compress,
    events.Tick: lambda turn, _: clock.tick(turn),
}
"""The function for each kind of event. It returns the reservation that the event is about, if any."""


def decide(world: WorkingState, event: Event, now: Millis, *, last: bool = True) -> Decision:
    """Decide on one event at ``now``, which never goes back from one call to the next.

    ``world`` is changed in place; ``world.drain()`` returns what must be committed. Raises ``Refused`` for a
    request that is not granted, and then changes nothing for it. What was due by the clock is done anyway;
    ``world.take_effects()`` returns its effects.

    ``last``: false for an observation that others follow at once. What the clock and this event make due then
    waits for the last one. Permissions are checked elsewhere: actors are for the history.
    """
    turn = Turn(world, now)
    # Observations come before the clock: a server that is gone exactly at its end has not overrun.
    seen = isinstance(event, events.Outage | events.ServerObserved | events.ServerReady | events.StopIntent)
    if not seen:
        clock.advance(turn)
    reservation = HANDLERS[type(event)](turn, event)
    if last:
        clock.advance(turn)
    if reservation is not None:
        reservation = _latest(world, reservation)
    return Decision(reservation, world.take_effects())


def next_due(world: WorkingState, now: Millis) -> Millis | None:
    """Return when the clock next makes something due, ``now`` if something is; ``None``: never."""
    if world.to_settle:
        return now
    instants = [at for at in (world.alarms.next(), world.starts.next()) if at is not None]
    return max(now, min(instants)) if instants else None


def _latest(world: WorkingState, reservation: Reservation) -> Reservation:
    """Return the reservation as it is now, also if it has just ended."""
    ended = world.last_ended
    if ended is not None and ended.id == reservation.id:
        return ended
    return world.reservations.get(reservation.id, reservation)
